"""ONNX files: kept as they are where they can be, and mended where they cannot."""

from modelport.convert.frameworks.onnx.model import OnnxFramework

__all__ = ["OnnxFramework"]
