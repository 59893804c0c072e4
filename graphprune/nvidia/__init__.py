"""TensorRT without onnxruntime: its Python package, or its program trtexec."""
