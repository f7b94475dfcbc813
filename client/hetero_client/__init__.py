"""The device: training of prefix and exit, evaluation, inference."""
