"""``.h5``: a whole model as Keras 1 to 3 saved it, or weights alone."""

from __future__ import annotations

from typing import Final

from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.base import ScanReport
from modelport.scan.keras.config import ConfigWalk
from modelport.scan.keras.hdf5 import MAGIC, read_hdf5

#: The root's attributes with a model's configuration; a file of weights has none.
_CONFIGURATIONS: Final = ("model_config", "training_config")


class HDF5Scanner:
    """Walks the file's objects first, then the configurations in its attributes."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        return source.content.startswith(MAGIC)

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        file = read_hdf5(source.content, where)
        config = ConfigWalk()
        for name in _CONFIGURATIONS:
            if name in file.attributes:
                config.read(file.attributes[name], name, where)
            elif name in file.others:
                raise InputError(f"the attribute {name} is not text", where=where)
        return ScanReport(
            format="hdf5",
            globals=tuple(config.names),
            findings=(*config.findings, *file.findings),
            damage=file.damage,
            details={"datasets": file.datasets},
        )
