"""Measuring networks: predictions, what is read from them, and what a network costs."""
