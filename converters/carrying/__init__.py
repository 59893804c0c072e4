"""A plan carried back: the source framework's own parameters, cut as the ONNX file was."""
