"""XGBoost boosters and their scikit-learn wrappers."""

from modelport.convert.frameworks.xgboost.model import XgboostFramework

__all__ = ["XgboostFramework"]
