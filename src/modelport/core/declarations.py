"""From flags and files to a declaration of processing steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelport.core.errors import InputError, NotFoundError
from modelport.core.options import PackOptions
from modelport.core.processing import PROCESSING_FOLDER, Declaration, Processing

#: How well-known models were fed while they were trained. Sizes are the model's own; where an
#: image is not square, ``imagenet`` crops it and the others squeeze it, as those trainings did.
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Pixels 0 to 255 as they are.
    "none": {"resize": "exact", "filter": "bilinear"},
    # keras.layers.Rescaling(1 / 255)
    "keras": {"resize": "exact", "filter": "bilinear", "divide": 255.0},
    # keras.applications: preprocess_input(mode="tf"): from -1 to 1 (MobileNet, Inception, Xception)
    "tf": {"resize": "exact", "filter": "bilinear", "divide": 127.5, "mean": [1.0]},
    # keras.applications: preprocess_input(mode="caffe") (VGG, ResNet)
    "caffe": {
        "resize": "exact",
        "filter": "bilinear",
        "colour": "BGR",
        "mean": [103.939, 116.779, 123.68],
    },
    # torchvision.transforms: Resize(256), CenterCrop(224), ToTensor(), Normalize(…)
    "imagenet": {
        "resize": "shorter",
        "filter": "bilinear",
        "divide": 255.0,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


def declare(
    options: PackOptions, processing: Mapping[str, Any] | None = None
) -> Declaration | None:
    """Read what the options name.

    Parameters
    ----------
    options : PackOptions
    processing : mapping, optional
        In place of the file ``options.processing``.

    Returns
    -------
    Declaration or None
        None where nothing is declared.

    Raises
    ------
    InputError
        With the place inside the file.
    """
    document: dict[str, Any] = {"inputs": [], "outputs": []}
    folder = Path()
    if processing is not None and options.processing:
        raise InputError("processing is declared twice: as a file and as a value")
    if processing is not None:
        document.update(processing)
    elif options.processing:
        folder = Path(options.processing).parent
        document.update(_read_object(Path(options.processing)))
    reader = _Reader(folder)
    document["inputs"] = [*_several(document["inputs"]), *_inputs(options)]
    document["outputs"] = [*_several(document["outputs"]), *_outputs(options)]
    if not document["inputs"] and not document["outputs"]:
        return None
    document = {side: [reader.step(step) for step in document[side]] for side in document
                if side in ("inputs", "outputs")} | {
        key: value for key, value in document.items()
        if key not in ("inputs", "outputs", "signature", "proven")}  # fmt: skip
    try:
        return Declaration(Processing.from_json(document), reader.files)
    except InputError as error:
        if options.processing:
            error.where = f"{options.processing}: {error.where}"
        raise


def _several(steps: Any) -> list[Any]:
    return list(steps) if isinstance(steps, list | tuple) else [steps]


def _inputs(options: PackOptions) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if options.image:
        if options.image in PRESETS:
            steps.append({"kind": "image", "preset": options.image})
        elif Path(options.image).suffix == ".json":
            steps.append({"kind": "image", **_read_object(Path(options.image))})
        else:
            raise NotFoundError("image preset", options.image, PRESETS, hint="or a .json file")
    if options.text:
        path = Path(options.text)
        kind = "text" if path.suffix == ".json" else "vocabulary"
        steps.append({"kind": kind, "file": str(path.absolute())})
    return steps


def _outputs(options: PackOptions) -> list[dict[str, Any]]:
    if not options.labels:
        if options.top_k:
            raise InputError("--top-k needs --labels")
        return []
    labels = str(Path(options.labels).absolute())
    return [{"kind": "labels", "labels": labels, "top_k": options.top_k}]


class _Reader:
    """Reads the files that steps name.

    Parameters
    ----------
    folder : Path
        That of the declaration, to which its names are relative.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, bytes] = {}

    def step(self, step: Any) -> Any:
        """The step, with its preset, labels and file resolved."""
        if not isinstance(step, Mapping):
            return step
        step = dict(step)
        if "preset" in step:
            name = step.pop("preset")
            if name not in PRESETS:
                raise NotFoundError("image preset", str(name), PRESETS)
            step = {**PRESETS[name], **step}
        if isinstance(step.get("labels"), str):
            step["labels"] = read_labels(self._folder / step["labels"])
        if isinstance(step.get("file"), str) and step["file"]:
            step["file"] = self._add(self._folder / step["file"])
        return step

    def _add(self, path: Path) -> str:
        content = _read(path)
        name = f"{PROCESSING_FOLDER}/{path.name}"
        if self.files.setdefault(name, content) != content:
            raise InputError(f"two files of one name: {path.name}", where=str(path))
        return name


def read_labels(path: Path) -> list[str]:
    """Names of classes: one per line, a JSON list, or an object ``{"0": "cat", …}``.

    Raises
    ------
    InputError
    """
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"labels are not UTF-8: {error}", where=str(path)) from error
    if path.suffix.lower() != ".json":
        lines = [line.strip() for line in text.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        return lines
    labels = _json(text, path)
    if isinstance(labels, dict) and {str(i) for i in range(len(labels))} == labels.keys():
        labels = [labels[str(i)] for i in range(len(labels))]
        # Keras and others: {"0": ["n01440764", "tench"], …}
        labels = [item[-1] if isinstance(item, list) and item else item for item in labels]
    if not isinstance(labels, list) or not all(isinstance(item, str) for item in labels):
        raise InputError(
            "labels are a list of texts, or an object by class number from 0", where=str(path)
        )
    return labels


def _read_object(path: Path) -> dict[str, Any]:
    try:
        document = _json(_read(path).decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: {error}", where=str(path)) from error
    if not isinstance(document, dict):
        raise InputError("not a JSON object", where=str(path))
    return document


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", where=str(path)) from error


def _read(path: Path) -> bytes:
    if not path.is_file():
        siblings = path.parent.glob("*") if path.parent.is_dir() else ()
        raise NotFoundError("file", path.name, sorted(p.name for p in siblings if p.is_file()),
                            where=str(path.parent))  # fmt: skip
    return path.read_bytes()
