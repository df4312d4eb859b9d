"""TFLite models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelport.core.source import AuditedSource

if TYPE_CHECKING:
    from modelport.convert.frameworks.tflite.model import TfliteSource


class TfliteFramework:
    """Takes TFLite models.

    TensorFlow is imported for them alone: it takes seconds, and every source asks every framework.
    """

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        return audited.format == "tflite"

    def load(self, audited: AuditedSource) -> TfliteSource:
        """See `modelport.convert.base.Framework.load`."""
        from modelport.convert.frameworks.tflite.model import load

        return load(audited.source)
