"""What the server learns with, as tensors.

Its layers, the strategies that train them, averages between rounds, the model that a run starts
from, values that are far beyond those of the others. Nothing here knows a run in progress.
"""
