"""What the two sides must agree on, and nothing else."""
