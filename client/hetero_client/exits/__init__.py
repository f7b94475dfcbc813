"""Early exits: when an exit answers, and when the server does.

What that is worth, and how the threshold is chosen. It is handed a way to ask the server, and knows
none itself.
"""
