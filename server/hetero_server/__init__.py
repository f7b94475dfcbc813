"""The server process: rounds, strategies, and the gRPC front before them."""
