"""Write the measured tables into both READMEs and the docs: ``python benchmarks/readme.py``.

It reads ``results/{small,cnn,binary,grpc}.json`` (from ``run.py --json``),
``results/startup.json`` (from ``startup.py --json``), ``results/conversion.json`` (from
``conversion.py --json``) and ``results/optimization.json`` (from ``optimization.py --json``), so
that no figure is typed by hand.
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
FILES: Final = (*READMES, "docs/20-convert.md", "docs/30-optimize.md", "docs/40-serve.md")

_CONVERTED: Final = (
    "model", "rows", "usual exporter", "its flips", "its rows off", "flips", "rows off",
    "load ms, its and ours",
)  # fmt: skip

_OPTIMIZED: Final = (
    "model", "MB", "smaller", "one row, ms", "faster", "in bulk", "loss (95 %), unseen rows", "by",
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
    return {
        "benchmark": render(),
        "payloads": render_payloads(),
        "conversion": render_conversion(),
        "optimization": render_optimization(),
        "optimization-runs": render_runs(),
    }


def render_conversion() -> str:
    """What usual exporters get wrong, and what modelport does."""
    return _table(_CONVERTED, [_conversion(record) for record in json.loads(_text("conversion"))])


def render_optimization() -> str:
    """What became of models with default settings."""
    return _table(_OPTIMIZED, [_optimized(line) for line in _read("optimization").values()])


def _optimized(line: dict[str, Any]) -> list[str]:
    if line["picked"] is None:
        return [line["title"], "", "", "", "", "", "", line["sentence"]]
    before, after = (size / 1e6 for size in line["bytes"])
    one, bulk, held = line["one_row"], line["bulk"], line["held_out"]
    return [
        line["title"],
        f"{before:.2f} → {after:.2f}",
        f"{before / after:.1f}×",
        f"{one['p50_ms'] * one['speedup']:.3g} → {one['p50_ms']:.3g}",
        f"{one['speedup']:.2f}×",
        f"{bulk['speedup']:.2f}× of {bulk['batch']}" if bulk else "",
        f"{held['value']:+.4f} ({held['low']:+.4f} to {held['high']:+.4f})",
        line["picked"],
    ]


def render_runs() -> str:
    """What the runs took, and what their picks do on rows that they never got."""
    header = ("model", "variants", "seconds", "peak MB", "load, ms", "memory, MB", "fresh rows")
    rows = [
        [
            line["title"],
            str(line["variants"]),
            str(line["seconds"]),
            str(line["peak_mb"]),
            _arrow(line, "load_ms"),
            _arrow(line, "memory_mb"),
            line["fresh"],
        ]
        for line in _read("optimization").values()
    ]
    return _table(header, rows)


def _arrow(line: dict[str, Any], key: str) -> str:
    return " → ".join(f"{value:g}" for value in line.get(key, ()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _conversion(record: dict[str, Any]) -> list[str]:
    usual, ours = record["stock"], record["modelport"]
    cells = [record["title"], f"{record['rows']:,}", record["exporter"]]
    for side in (usual, ours):
        done = side["outcome"] == "converted"
        cells += [str(side["flips"]), str(side["off"])] if done else [side["outcome"][:7], ""]
    return [*cells, f"{usual['load_ms']:.1f}, {ours['load_ms']:.1f}"]


def render() -> str:
    """The table of small models, then the line about starting."""
    small = _read("small")
    floors = {model: _floor(small, model) for model in ("m8", "m784")}
    first = ["raw `session.run`", f"{floors['m8']:.1f}", "1.0", f"{floors['m784']:.1f}", "1.0"]
    peers = dict.fromkeys(record["peer"] for record in small["servers"])
    rows = sorted(
        (_row(peer, small["servers"], floors) for peer in peers), key=lambda row: float(row[1])
    )
    return f"{_table(_HEADER, [[*first, '', ''], *rows])}\n{_startup(_read('startup'))}\n"


def render_payloads() -> str:
    """A large model and raw tensors, where the bytes of a request weigh more."""
    return f"{_cnn(_read('cnn'))}\n\n{_binary(_read('binary'), _read('grpc'))}\n"


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
    for name in FILES:
        path = _HERE.parent / name
        text = path.read_text(encoding="utf-8")
        for section, rendered in sections().items():
            if f"<!-- {section} -->" not in text:
                continue
            before, begin, rest = text.partition(f"<!-- {section} -->\n")
            _, end, after = rest.partition(f"<!-- /{section} -->")
            text = before + begin + rendered + end + after
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
