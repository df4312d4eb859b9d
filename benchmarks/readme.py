"""Write the measured tables into both READMEs: ``python benchmarks/readme.py``.

It reads ``results/{small,cnn,binary,grpc}.json`` (from ``run.py --json``),
``results/startup.json`` (from ``startup.py --json``) and ``results/conversion.json`` (from
``conversion.py --json``), so that no figure is typed by hand.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_RESULTS: Final = _HERE / "results"
READMES: Final = ("README.md", "README.zh-CN.md")

_CONVERTED: Final = (
    "model", "rows", "usual exporter", "its flips", "its rows off", "flips", "rows off",
    "load ms, its and ours",
)  # fmt: skip

_HEADER: Final = (
    "server", "8→10→1, CPU µs", "× raw", "784→256→128→10, CPU µs", "× raw", "start s", "RSS MB",
)  # fmt: skip
#: Of the line about raw tensors.
_CONNECTIONS: Final = 32

_NAMES: Final = {
    "granian_bare": "bare Granian prototype, no validation",
    "mosec_batching": "Mosec, batching",
    "mosec": "Mosec",
    "triton": "Triton, Python backend",
    "fastapi": "FastAPI, tuned",
    "mlserver": "MLServer",
    "kserve": "KServe",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "modelport": "**modelport**",
}


def sections() -> dict[str, str]:
    """What stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, by name."""
    return {"benchmark": render(), "conversion": render_conversion()}


def render_conversion() -> str:
    """What usual exporters get wrong, and what modelport does."""
    lines = [_CONVERTED, ["---"] + ["---:"] * (len(_CONVERTED) - 1)]
    lines += [_conversion(record) for record in json.loads(_text("conversion"))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _conversion(record: dict[str, Any]) -> list[str]:
    usual, ours = record["stock"], record["modelport"]
    cells = [record["title"], f"{record['rows']:,}", record["exporter"]]
    for side in (usual, ours):
        done = side["outcome"] == "converted"
        cells += [str(side["flips"]), str(side["off"])] if done else [side["outcome"][:7], ""]
    return [*cells, f"{usual['load_ms']:.1f}, {ours['load_ms']:.1f}"]


def render() -> str:
    """The table of small models, then the lines about the CNN and about starting."""
    small, cnn, startup = (_read(name) for name in ("small", "cnn", "startup"))
    floors = {model: _floor(small, model) for model in ("m8", "m784")}
    lines = [
        ["raw `session.run`", f"{floors['m8']:.1f}", "1.0", f"{floors['m784']:.1f}", "1.0", "", ""]
    ]
    peers = dict.fromkeys(record["peer"] for record in small["servers"])
    rows = [_row(peer, small["servers"], floors) for peer in peers]
    lines += sorted(rows, key=lambda row: float(row[1]))
    table = [_HEADER, ["---"] + ["---:"] * (len(_HEADER) - 1), *lines]
    text = ["| " + " | ".join(cells) + " |" for cells in table]
    last = (_cnn(cnn), _binary(_read("binary"), _read("grpc")), _startup(startup))
    return "\n".join([*text, *(line for item in last for line in ("", item))]) + "\n"


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_text(name))
    return document


def _text(name: str) -> str:
    return (_RESULTS / f"{name}.json").read_text(encoding="utf-8")


def _floor(document: dict[str, Any], model: str) -> float:
    return _median([r for r in document["raw"] if r["model"] == model], "processor_microseconds")


def _row(peer: str, records: Sequence[dict[str, Any]], floors: dict[str, float]) -> list[str]:
    cells = [_NAMES.get(peer, peer)]
    mine = [record for record in records if record["peer"] == peer]
    for model, floor in floors.items():
        measured = _median([r for r in mine if r["model"] == model], "processor_microseconds")
        cells += [f"{measured:.1f}", f"{measured / floor:.1f}"]
    eight = [record for record in mine if record["model"] == "m8"]
    return [*cells, f"{_median(eight, 'start'):.2f}", f"{_median(eight, 'rss') / 1e6:.0f}"]


def _cnn(document: dict[str, Any]) -> str:
    floor = _floor(document, "cnn") / 1e3
    parts = []
    for protocol, name in (("v2-binary", "V2 binary"), ("v2-json", "V2 JSON"), ("tfs", "TFS JSON")):
        mine = [r for r in document["servers"] if r["protocol"] == protocol]
        spent = _median([r for r in mine if r["peer"] == "modelport"], "processor_microseconds")
        parts.append(f"{name} {spent / 1e3:.2f}")
    return f"ResNet-18 shape, 3×224×224, CPU ms: raw {floor:.2f}, {', '.join(parts)}."


def _binary(rest: dict[str, Any], grpc: dict[str, Any]) -> str:
    """784 features as raw tensors, ours and Triton's, at 32 connections."""
    spent = {
        record["peer"]: f"{_median(_of(document, record['peer']), 'processor_microseconds'):.0f}"
        for document in (rest, grpc)
        for record in document["servers"]
        if record["connections"] == _CONNECTIONS
    }
    return (
        f"784→256→128→10 as raw tensors, CPU µs: V2 REST {spent['modelport']} (Triton "
        f"{spent['triton']}), V2 gRPC {spent['modelport_grpc']} (Triton {spent['triton_grpc']})."
    )


def _of(document: dict[str, Any], peer: str) -> list[dict[str, Any]]:
    return [
        record
        for record in document["servers"]
        if record["peer"] == peer and record["connections"] == _CONNECTIONS
    ]


def _startup(document: dict[str, Any]) -> str:
    (server,) = [s for s in document["servers"] if s["peer"] == "modelport"]
    bare, with_it = (min(laps) * 1e3 for laps in document["imports"].values())
    installed = sum(document["installed"].values()) / 1e6
    return (
        f"Start to first correct answer: {statistics.median(server['seconds']):.2f} s. "
        f"Memory: {statistics.median(server['rss']) / 1e6:.0f} MB. "
        f"`import modelport`: {max(with_it - bare, 0.0):.1f} ms. Installed: {installed:.0f} MB."
    )


def _median(records: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.median(record[key] for record in records)


def main() -> None:
    """Replace what stands between the markers."""
    for name in READMES:
        path = _HERE.parent / name
        text = path.read_text(encoding="utf-8")
        for section, rendered in sections().items():
            before, begin, rest = text.partition(f"<!-- {section} -->\n")
            _, end, after = rest.partition(f"<!-- /{section} -->")
            text = before + begin + rendered + end + after
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
