"""What both sides of a run agree on, as values.

The plan, what the sides tell each other at the boundaries of rounds, the steps of a round, the
status of a run, accuracies per class, losses that are adjusted to a client's classes. Nothing here
sends, stores or trains.
"""
