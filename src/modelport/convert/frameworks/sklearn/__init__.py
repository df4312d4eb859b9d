"""scikit-learn estimators and pipelines."""

from modelport.convert.frameworks.sklearn.model import SklearnFramework

__all__ = ["SklearnFramework"]
