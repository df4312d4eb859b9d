"""The model card: what a person reads first in a package."""

from __future__ import annotations

from collections.abc import Iterable

from modelport.core.artifact import Artifact
from modelport.core.parity_report import describe_parity
from modelport.core.tensors import TensorSpec


def model_card(artifact: Artifact, name: str) -> str:
    """Markdown with the signature, the parity report and the provenance."""
    golden = artifact.golden
    lines = [
        f"# {name}",
        "",
        f"A {artifact.task} model, packaged by modelport for the {artifact.engine} engine.",
        "",
        "## Inputs",
        "",
        *_table(artifact.signature.inputs),
        "",
        "## Outputs",
        "",
        *_table(artifact.signature.outputs),
        "",
        *_processing(artifact),
        "## Parity with the source model",
        "",
        *(f"- {line}" for line in describe_parity(artifact.parity)),
        f"- golden records: {golden.rows if golden else 'none'}",
        "- requests may share a batch: " + ("yes" if artifact.row_independent else "no"),
        "",
        "## Provenance",
        "",
        *(f"- {key}: {_inline(value)}" for key, value in sorted(artifact.provenance.items())),
    ]
    return "\n".join(lines) + "\n"


def _processing(artifact: Artifact) -> list[str]:
    if artifact.processing is None:
        return []
    steps = [f"- {line}" for line in artifact.processing.describe()]
    return ["## Processing", "", *steps, ""]


def _table(specs: Iterable[TensorSpec]) -> list[str]:
    rows = [
        f"| `{spec.name}` | {spec.dtype} | `{spec.shape_text}` | {_columns(spec)} |"
        for spec in specs
    ]
    return ["| name | type | shape | columns |", "|---|---|---|---|", *rows]


def _columns(spec: TensorSpec) -> str:
    shown = ", ".join(spec.columns[:8])
    return f"{shown}, … ({len(spec.columns)})" if len(spec.columns) > 8 else shown


def _inline(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
