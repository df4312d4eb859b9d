"""TorchServe's model archives: ``.mar``."""

from __future__ import annotations

import json
from typing import Any, Final

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.source import Source
from modelport.scan.archives.members import inner_source
from modelport.scan.archives.zip_archive import member_names, open_zip
from modelport.scan.base import Finding, Opened, ScanReport

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
# TorchServe's own; what they do before and after the model is not part of it.
_OWN_HANDLERS: Final = frozenset(
    {"image_classifier", "image_segmenter", "object_detector", "text_classifier", "text_handler"}
)
_CODE: Final = "a Python file in the archive"


class TorchServeContainer:
    """Finds the serialized model by the manifest; the archive's code is never run."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Container.recognises`."""
        return _MANIFEST in member_names(source.content)

    def open(self, source: Source) -> Opened:
        """See `modelport.scan.base.Container.open`."""
        where = str(source.path)
        archive = open_zip(source.content, where)
        if archive.findings:
            return Opened(ScanReport("mar", findings=archive.findings), None)
        model = _model(archive.read(_MANIFEST), where)
        member, code = _text(model, "serializedFile"), _text(model, "modelFile")
        if not member:
            raise UnsupportedError(
                "the archive names no serialized model; its handler makes the model",
                where=where,
                hint="pack the model itself: torch.jit.save or torch.export.save it first",
            )
        if code and not source.factory:
            raise UnsupportedError(
                f"{member} holds weights, and the model is made by {code}, {_CODE}",
                where=where,
                hint="read that file, put it where Python finds it, and name the model's class in "
                "it: --factory module:Class",
            )
        files = {name: archive.read(name) for name in archive.sizes}
        findings = [
            Finding("file", repr(name), "manifest", "the manifest names it, and it is not there")
            for name in (member,)
            if name not in files
        ]
        report = ScanReport("mar", findings=tuple(findings))
        if findings:
            return Opened(report, None)
        return Opened(report, inner_source(source, files, member), _notes(source, model, files))


def _model(manifest: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(manifest)
        model = document["model"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"the archive's {_MANIFEST} is damaged: {error!r}", where=where) from error
    if not isinstance(model, dict):
        raise InputError(f"the archive's {_MANIFEST} describes no model", where=where)
    return model


def _text(model: dict[str, Any], key: str) -> str:
    value = model.get(key)
    return value if isinstance(value, str) else ""


def _notes(source: Source, model: dict[str, Any], files: dict[str, bytes]) -> tuple[str, ...]:
    notes = []
    handler = _text(model, "handler").rpartition("/")[2]
    if handler.partition(":")[0].removesuffix(".py") in _OWN_HANDLERS:
        notes.append(
            f"TorchServe's {handler} prepared the inputs and read the outputs in {source.name}; "
            "the package has the model alone"
        )
    elif handler:
        notes.append(f"the handler {handler} in {source.name} is code, and is not used")
    if "index_to_name.json" in files:
        notes.append(f"index_to_name.json in {source.name} names the classes; it is not used")
    extra = sorted(
        name
        for name in files
        if name not in (_MANIFEST, _text(model, "serializedFile"), "index_to_name.json")
        and name.rpartition("/")[2] != handler
    )
    if extra:
        notes.append(f"not used from {source.name}: {', '.join(extra[:10])}")
    return tuple(notes)
