"""LightGBM boosters and their scikit-learn wrappers."""

from modelport.convert.frameworks.lightgbm.model import LightgbmFramework

__all__ = ["LightgbmFramework"]
