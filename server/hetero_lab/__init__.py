"""The researcher's bench: many clients in one process, baselines, local fleets. No gRPC."""
