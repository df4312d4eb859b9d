"""Tree ensembles in ONNX files: ONNX Runtime for few rows, XGBoost for many."""

from modelport.engines.forest.engine import ForestEngine

__all__ = ["ForestEngine"]
