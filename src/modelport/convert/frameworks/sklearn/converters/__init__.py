"""Converters for estimators that skl2onnx has none for, or wrong ones.

Each writes the estimator's closed form as it stands in scikit-learn's source. Importing this
package registers them with skl2onnx.
"""

from modelport.convert.frameworks.sklearn.converters.registry import register_all

__all__ = ["register_all"]
