"""TensorFlow SavedModel folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelport.core.source import AuditedSource

if TYPE_CHECKING:
    from modelport.convert.frameworks.tensorflow.model import SavedModelSource


class TensorFlowFramework:
    """Takes SavedModel folders.

    TensorFlow is imported for them alone: it takes seconds, and every source asks every framework.
    """

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        return audited.format == "savedmodel"

    def load(self, audited: AuditedSource) -> SavedModelSource:
        """See `modelport.convert.base.Framework.load`."""
        from modelport.convert.frameworks.tensorflow.model import load

        return load(audited.source)
