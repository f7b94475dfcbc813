"""gRPC as both sides use it.

Messages and the values they carry, bulk bytes in frames, errors as status codes, certificates. With
`hetero_server.net` and `hetero_client.link` this is all that knows a network.
"""
