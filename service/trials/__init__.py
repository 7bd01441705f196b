"""Trials: who is followed, which exam is which visit, what has changed, and what of it may leave the node."""
