"""How one process computes.

Device and precision, seeds, batches and their augmentation, the learning rule of some layers,
threads and memory. Nothing here knows a run: whoever does hands in what it takes.
"""
