"""Real packages on disk, with golden records that ONNX Runtime computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from modelport.adapters import find_adapter
from modelport.core.compare import TOLERANCES
from modelport.core.digest import sha256_bytes
from modelport.core.golden import GoldenRecords
from modelport.core.manifest import FileEntry, Manifest
from modelport.core.package import GOLDEN, Package, write_package
from modelport.core.signature import Signature
from modelport.core.tensors import Array
from modelport.engines.base import EngineOptions

MODEL_FILE = "model/model.onnx"


def reference(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime itself answers: the truth that the server is held against."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def signature_of(model: bytes, refuses: Sequence[str] = ()) -> Signature:
    """The signature that the model file tells; its inputs refuse ``nan`` or ``infinity``."""
    told = find_adapter("engine", "onnxruntime").load().load(model, EngineOptions()).signature
    return Signature(
        tuple(replace(spec, refuses=tuple(refuses)) for spec in told.inputs), told.outputs
    )


def build_package(
    folder: Path,
    name: str,
    model: bytes,
    golden_inputs: Mapping[str, Array] | None,
    *,
    row_independent: bool = True,
    refuses: Sequence[str] = (),
    wrong_output: str = "",
) -> Package:
    """Write a package to `folder`.

    Parameters
    ----------
    golden_inputs : mapping or None
        Rows for the golden records; None for a package without any.
    wrong_output : str
        An output whose golden answers are falsified.
    """
    files = {MODEL_FILE: model, "README.md": b"# a test\n", "baseline.json": b"{}\n"}
    if golden_inputs is not None:
        outputs = reference(model, golden_inputs)
        if wrong_output:
            outputs[wrong_output] = outputs[wrong_output] + np.ones((), outputs[wrong_output].dtype)
        files[GOLDEN] = GoldenRecords(dict(golden_inputs), outputs).to_bytes()
    manifest = Manifest(
        name=name,
        engine="onnxruntime",
        model_file=MODEL_FILE,
        files={path: FileEntry(sha256_bytes(data), len(data)) for path, data in files.items()},
        signature=signature_of(model, refuses),
        task="unknown",
        tolerance=TOLERANCES["float32"],
        row_independent=row_independent,
        parity={},
        provenance={"framework": "onnx"},
    )
    return write_package(folder, manifest, files)
