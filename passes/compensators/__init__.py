"""Compensators."""
