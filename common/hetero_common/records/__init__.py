"""What a process leaves behind.

Its run directory with events, settings and weights, checkpoints to go on from, logs, TensorBoard's
files. All of it is written whole or not at all, and reading it runs none of it.
"""
