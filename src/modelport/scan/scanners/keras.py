"""``.keras``: a zip archive with the model's configuration, its weights and its word lists."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from modelport.adapters import suffix_of
from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.archives.zip_archive import (
    MAGIC,
    ZipArchive,
    member_finding,
    member_names,
    open_zip,
)
from modelport.scan.base import Finding, ScanReport
from modelport.scan.keras.config import ConfigWalk
from modelport.scan.keras.hdf5 import read_hdf5

_SUFFIX: Final = ".keras"
_CONFIG: Final = "config.json"
_METADATA: Final = "metadata.json"
_WEIGHTS: Final = "model.weights.h5"
#: Where layers keep files of their own: the words of text layers.
_ASSETS: Final = "assets/"


class KerasScanner:
    """Checks the archive, then every name in its configuration, then the weights file."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        names = member_names(source.content)
        if not names and source.content.startswith(MAGIC):  # damaged: its scanner says where
            return suffix_of(PurePath(source.name)) == _SUFFIX
        return _CONFIG in names and any(name.startswith("model.weights.") for name in names)

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        archive = open_zip(source.content, where)
        findings = [*archive.findings, *_members(archive)]
        if findings:  # nothing may be read from it
            return ScanReport("keras", findings=tuple(findings))
        for name in (_CONFIG, _WEIGHTS):
            if name not in archive.sizes:
                raise InputError(f"the Keras model has no {name}", where=where)
        archive.check_all()
        config = ConfigWalk()
        config.read(archive.read(_CONFIG), _CONFIG, where)
        weights = read_hdf5(archive.read(_WEIGHTS), where, _WEIGHTS)
        return ScanReport(
            format="keras",
            globals=tuple(config.names),
            findings=(*config.findings, *weights.findings),
            damage=weights.damage,
            details={"datasets": weights.datasets},
        )


def _members(archive: ZipArchive) -> list[Finding]:
    """Keras unpacks the whole archive when it has more than its three members."""
    return [
        member_finding(name, "not a member that Keras writes")
        for name in archive.sizes
        if name not in (_CONFIG, _METADATA, _WEIGHTS) and not name.startswith(_ASSETS)
    ]
