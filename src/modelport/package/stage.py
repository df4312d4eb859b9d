"""From an artifact to a package folder."""

from __future__ import annotations

import json
from pathlib import Path

from modelport.core.artifact import Artifact
from modelport.core.digest import sha256_bytes
from modelport.core.manifest import FileEntry, Manifest, check_name
from modelport.core.package import BASELINE, CARD, GOLDEN, Package, write_package
from modelport.package.card import model_card


def build_package(artifact: Artifact, name: str, folder: Path, *, replace: bool = False) -> Package:
    """Write `artifact` as the package ``folder/name``.

    Parameters
    ----------
    artifact : Artifact
    name : str
        The model's name; see `modelport.core.manifest.check_name`.
    folder : Path
        Made if it does not exist.
    replace : bool
        Whether another package of that name may be replaced.

    Raises
    ------
    InputError
        When the name cannot be a model's.
    ConflictError
        When something else stands at ``folder/name``.
    """
    check_name(name)
    files = dict(artifact.files)
    if artifact.golden is not None:
        files[GOLDEN] = artifact.golden.to_bytes()
    files[BASELINE] = _readable_json(artifact.baseline)
    files[CARD] = model_card(artifact, name).encode()
    manifest = Manifest(
        name=name,
        engine=artifact.engine,
        model_file=artifact.model_file,
        files={path: FileEntry(sha256_bytes(data), len(data)) for path, data in files.items()},
        signature=artifact.signature,
        task=artifact.task,
        tolerance=artifact.tolerance,
        row_independent=artifact.row_independent,
        parity=artifact.parity,
        provenance=artifact.provenance,
        processing=artifact.processing,
    )
    return write_package(folder / name, manifest, files, replace=replace)


def _readable_json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
