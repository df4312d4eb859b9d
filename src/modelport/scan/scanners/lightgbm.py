"""LightGBM's text models."""

from __future__ import annotations

from typing import Final

from modelport.core.errors import InputError
from modelport.core.source import Source
from modelport.scan.base import ScanReport
from modelport.scan.trees.lightgbm_model import check_lightgbm

_BEGINNINGS: Final = (b"tree\nversion=", b"tree\r\nversion=")


class LightgbmScanner:
    """Reads the whole model: its loader trusts every number in it."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        return source.content.startswith(_BEGINNINGS)

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        try:
            check_lightgbm(source.content.decode())
        except ValueError as error:
            raise InputError(
                f"not a LightGBM model, or truncated: {error}",
                where=str(source.path or source.name),
                hint="save or download the file again, byte by byte (it counts its own bytes)",
            ) from error
        return ScanReport(format="lightgbm")
