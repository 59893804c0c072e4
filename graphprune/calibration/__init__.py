"""Calibration: samples, the second moments of what each layer reads, and runs piece by piece."""
