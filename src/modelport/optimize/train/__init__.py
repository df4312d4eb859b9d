"""ONNX graphs in PyTorch, and their training to answer as the original does."""
