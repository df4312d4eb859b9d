"""The value that passes from stage to stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelport.core.compare import Tolerance
from modelport.core.golden import GoldenRecords
from modelport.core.processing import Processing
from modelport.core.signature import Signature


@dataclass(frozen=True)
class Artifact:
    """A converted model with everything known about it.

    Parameters
    ----------
    engine : str
        Name of the engine adapter that executes it.
    model_file : str
        Which of `files` the engine opens.
    files : mapping of str to bytes
        Model files by relative path.
    signature : Signature
        What clients send and get.
    task : str
        ``classification``, ``regression``, ``clustering``, ``outlier``, ``transform`` or
        ``unknown``.
    tolerance : Tolerance
        What "the same answer" means for this model's floating-point outputs.
    golden : GoldenRecords or None
        None when no rows were given and none could be made.
    row_independent : bool
        True when a row's answer was proven not to depend on the rows beside it, so that
        requests may share a batch.
    parity : mapping
        The parity report, plain.
    baseline : mapping
        Statistics of the sample rows, plain.
    provenance : mapping
        Source, framework and exporter, plain.
    processing : Processing or None
        What happens to clients' values before the model, and to its answers after it. Its files
        are among `files`, its `signature` is what the engine takes and gives.
    """

    engine: str
    model_file: str
    files: Mapping[str, bytes] = field(repr=False)
    signature: Signature
    task: str
    tolerance: Tolerance
    golden: GoldenRecords | None
    row_independent: bool
    parity: Mapping[str, Any]
    baseline: Mapping[str, Any]
    provenance: Mapping[str, Any]
    processing: Processing | None = None
