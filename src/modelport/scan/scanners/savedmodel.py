"""SavedModel folders: TensorFlow's operations, assets and variables, without TensorFlow."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from modelport.core.errors import InputError, UnsupportedError
from modelport.core.source import Source
from modelport.scan.base import Finding, ScanReport
from modelport.scan.encodings.protobuf import Messages, Span
from modelport.scan.keras.config import ConfigWalk
from modelport.scan.keras.names import DENIED
from modelport.scan.tensorflow.check import graph_findings
from modelport.scan.tensorflow.graph import MetaGraph, read_saved_model

_MODEL: Final = "saved_model.pb"
_TEXT: Final = "saved_model.pbtxt"
_CHUNKED: Final = "saved_model.cpb"
_KERAS: Final = "keras_metadata.pb"
_INDEX: Final = "variables/variables.index"
_DATA: Final = "variables/variables.data-"
#: A table in the format of LevelDB ends with this (``tsl/lib/io/format.h``).
_TABLE_MARK: Final = (0xDB4775248B80FB57).to_bytes(8, "little")


class SavedModelScanner:
    """Walks the graphs, their functions and the objects around them."""

    def recognises(self, source: Source) -> bool:
        """See `modelport.scan.base.Scanner.recognises`."""
        return source.is_folder and any(name in source.files for name in (_MODEL, _TEXT, _CHUNKED))

    def scan(self, source: Source) -> ScanReport:
        """See `modelport.scan.base.Scanner.scan`."""
        where = str(source.path or source.name)
        for name in (_TEXT, _CHUNKED):
            if name in source.files:  # beside the other, it is not certain which one is loaded
                raise UnsupportedError(
                    f"the SavedModel is in the form of {name}",
                    where=where,
                    hint=f"load it with TensorFlow and save it again: as {_MODEL} alone",
                )
        content = source.files[_MODEL]
        graphs = read_saved_model(content, where)
        if not any(len(scope.nodes) for graph in graphs for scope in graph.scopes.values()):
            raise InputError("the SavedModel has no graph, or is truncated", where=where)
        findings: list[Finding] = []
        for graph in graphs:
            findings += graph_findings(graph)
            findings += _asset_findings(graph, source, where)
            findings += _keras_findings(graph.metadata, where)
        findings += _keras_findings(_keras_metadata(source, where), where)
        _check_variables(source, where)
        nodes = sum(len(scope.nodes) for graph in graphs for scope in graph.scopes.values())
        return ScanReport(
            format="savedmodel",
            findings=tuple(dict.fromkeys(findings)),
            details={"graphs": len(graphs), "operations": nodes},
        )


def _asset_findings(graph: MetaGraph, source: Source, where: str) -> list[Finding]:
    """TensorFlow joins an asset's name to the folder as it is."""
    findings = []
    for name in graph.asset_names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or not name.isprintable():
            findings.append(Finding("file", repr(name), "assets", "it leaves the model's folder"))
        elif f"assets/{PurePosixPath(name)}" not in source.files:
            raise InputError(f"the SavedModel lacks its asset {name}", where=where)
    return findings


def _keras_metadata(source: Source, where: str) -> list[str]:
    """What Keras 2.5 and later wrote into a file of its own: SavedMetadata.nodes[].metadata."""
    content = source.files.get(_KERAS)
    if content is None:
        return []
    messages = Messages(content, where, "Keras' metadata")
    return [
        messages.text(place)
        for node in messages.inside(messages.whole, 1)
        for number, place in messages.fields(node)
        if number == 4 and isinstance(place, Span)
    ]


def _keras_findings(metadata: list[str], where: str) -> list[Finding]:
    """Only code counts here: classes are not looked up, TensorFlow has their graphs."""
    config = ConfigWalk()
    for text in metadata:
        if text.strip():
            config.read(text, _KERAS, where)
    return [finding for finding in config.findings if finding.why == DENIED["Lambda"]]


def _check_variables(source: Source, where: str) -> None:
    """A model without variables has no such folder; half of one is damage."""
    index = source.files.get(_INDEX)
    data = [name for name in source.files if name.startswith(_DATA)]
    if index is None and not data:
        return
    if index is None or not data:
        raise InputError(
            f"the SavedModel has variables and no {_INDEX if index is None else _DATA + '…'}",
            where=where,
            hint="copy the whole folder",
        )
    if index[-len(_TABLE_MARK) :] != _TABLE_MARK:
        raise InputError(f"{_INDEX} is damaged or truncated", where=where)
