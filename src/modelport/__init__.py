"""modelport: from a trained model to a fast, small, verified service on any cloud.

The verbs are functions of `modelport.api`::

    from modelport.api import pack, predict

    package = pack(classifier, "churn", sample=rows)

They are not attributes of this package: several are called as the stage that does them.
"""

__version__ = "0.1.0"
