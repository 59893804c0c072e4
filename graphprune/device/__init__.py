"""Machines that models are timed on, and what is known about them.

`protocol.py` says what a device does; `local.py` is this machine.
"""
