"""What the two sides must agree on, and nothing else."""

import os

# gRPC reads these when it is imported, wherever that is first. What a stranger sends to the port
# would be lines of gRPC's own among those of our log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
