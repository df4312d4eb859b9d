"""The scan as a gate for other stages: found through the table, as every adapter is."""

from __future__ import annotations

from pathlib import Path

from modelport.core.errors import UnsafeError
from modelport.core.source import Source
from modelport.scan.stage import audit


class ScanGate:
    """Lets a model file pass, or not."""

    def check(self, path: Path) -> None:
        """Scan a model file or folder that is about to be loaded.

        What its packer allowed counts for nothing here: this is another machine. A digest proves
        that nobody changed the file since, not that the one who packed it meant well.

        Raises
        ------
        UnsafeError
            When loading it could run code.
        """
        try:
            audit(Source.of(path))
        except UnsafeError as error:
            # The scan's own hint names flags of 'pack'; nothing opens this gate.
            error.hint = "pack it as ONNX, which runs no code: leave '--engine native' out"
            raise
