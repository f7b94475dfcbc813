"""A run: who takes part, whose batch is next, what is computed, who is told what.

It knows no wire, no thread and no clock. Whoever drives it reports what has happened, and computes
the work that it hands out.
"""
