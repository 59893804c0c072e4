"""Reading, writing and normalising ONNX files."""
