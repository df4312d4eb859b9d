"""Looks into ONNX graphs."""

from modelport.convert.diverge.onnx.inspector import OnnxInspector

__all__ = ["OnnxInspector"]
