"""Accelerators by name: a table of chips, and the arithmetic that a program asks of them."""
