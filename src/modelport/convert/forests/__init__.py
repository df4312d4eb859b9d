"""Boosted trees as plain arrays and as ONNX operators, whatever library grew them."""
