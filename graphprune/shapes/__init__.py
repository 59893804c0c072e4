"""Concrete shapes, and the arithmetic that models do on them."""
