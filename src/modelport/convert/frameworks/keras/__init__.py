"""Keras models: ``.keras`` and HDF5 files, weights with a factory, live models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from modelport.core.source import AuditedSource

if TYPE_CHECKING:
    from modelport.convert.frameworks.keras.model import KerasSource


class KerasFramework:
    """Takes Keras models.

    TensorFlow is imported for them alone: it takes seconds, and every source asks every framework.
    """

    def recognises(self, audited: AuditedSource) -> bool:
        """See `modelport.convert.base.Framework.recognises`."""
        if audited.format == "object":
            # Whoever has a live Keras model has imported Keras.
            keras = sys.modules.get("keras")
            return keras is not None and isinstance(audited.source.model, keras.Model)
        return audited.format in ("keras", "hdf5")

    def load(self, audited: AuditedSource) -> KerasSource:
        """See `modelport.convert.base.Framework.load`."""
        from modelport.convert.frameworks.keras.loading import load

        return load(audited.source)
