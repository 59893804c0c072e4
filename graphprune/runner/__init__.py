"""What runs on the device that is measured: python 3.8 or newer, numpy and onnxruntime, nothing else.

Measurements of this machine import these modules; a remote machine gets them joined to one file
(`graphprune/remote/bundle.py`).  So they import only each other, the standard library and, within functions,
those two packages.
"""
