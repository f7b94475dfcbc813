"""Run directories as values.

What a server, a client or the simulator has recorded, checked and in one form, and runs that repeat
each other as groups. Reports and tables are made of it.
"""
