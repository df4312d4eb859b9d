"""Trees, linear models and vocabularies inside ONNX graphs."""
