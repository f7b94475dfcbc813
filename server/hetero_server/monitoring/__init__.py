"""The server as others see it: its page, its metrics, the status of a run.

It is told what happens, and reads the rest off the run whenever somebody asks. It changes nothing.
"""
