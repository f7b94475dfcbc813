"""The server on the network: all of its gRPC.

Where it listens, what each call passes, a method per RPC, sessions, bulk bytes in bounded time and
memory, limits, heartbeats, health. It decodes, calls `hetero_server.run`, and encodes.
"""
