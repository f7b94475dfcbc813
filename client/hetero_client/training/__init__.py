"""The device's part of a run.

The trainer of prefix and exits, what a client does round after round, states to go back to, what
the server returned in this round. It reaches the server through a `Link`, whatever that is.
"""
