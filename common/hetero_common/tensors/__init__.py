"""Tensors on their way, and averages of them.

Activations as bytes, weights as files and as what a round has changed of them, averages of layers
over all who hold them. Nothing here knows a network, a run or a device.
"""
