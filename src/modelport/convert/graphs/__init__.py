"""Edits of ONNX graphs that several frameworks need."""
