"""Who calls.

The identity that a credential proves, and hetero-certs, which makes certificates and tokens. The
network and the page ask it; it knows nothing of a run.
"""
