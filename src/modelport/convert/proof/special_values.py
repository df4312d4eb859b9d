"""NaN and infinity, where an export answers them otherwise than its source model.

TensorFlow's maximum passes over NaN and ONNX's does not; both are right by their own books, and
no graph of other operators would be as fast. Nobody means such a value: the served model refuses
it, so that it never gives another answer than the source.
"""

from __future__ import annotations

from dataclasses import replace

from modelport.adapters import find_adapter
from modelport.convert.base import Export, SourceModel
from modelport.convert.proof.parity import serve_rows, tolerance_for
from modelport.convert.proof.probes import ask, judge, rows_made_to_hurt
from modelport.core.rows import Rows
from modelport.core.signature import Signature
from modelport.engines.base import Engine, EngineOptions


def refuse_where_different(export: Export, source: SourceModel, rows: Rows | None) -> Export:
    """Mark the special values that the export answers in another way as refused."""
    if rows is None or export.signature.batch_symbol is None:
        return export
    engine: Engine = find_adapter("engine", export.engine).load()
    model = engine.load(export.model, EngineOptions())
    seen = serve_rows(rows, export.signature).seen
    tolerance = tolerance_for(export.signature, source.predict(seen))
    refused: dict[str, list[str]] = {}
    for probe in rows_made_to_hurt(seen, export.signature):
        if probe.special is None:
            continue
        if judge(ask(source, probe), model, export.signature, tolerance)["refuses"]:
            name, kind = probe.special
            refused.setdefault(name, []).append(kind)
    if not refused:
        return export
    inputs = tuple(
        replace(spec, refuses=tuple(refused.get(spec.name, ()))) for spec in export.signature.inputs
    )
    notes = tuple(
        f"{' and '.join(kinds)} in {name} {'are' if len(kinds) > 1 else 'is'} refused: the source "
        "model gives an answer, and the served model would give another"
        for name, kinds in refused.items()
    )
    return replace(
        export,
        signature=Signature(inputs, export.signature.outputs),
        notes=(*export.notes, *notes),
    )
