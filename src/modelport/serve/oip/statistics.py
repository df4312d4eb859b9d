"""Triton's statistics of every model, as plain data: for V2 over REST and over gRPC.

Source: Triton's ``docs/protocol/extension_statistics.md``. The keys are those of its JSON, and of
``inference.ModelStatistics``. Durations are nanoseconds, counts and sums grow as long as the
server lives; everything is summed over the workers, but for ``batch_stats``, which are those of
the worker that answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from modelport.serve.metrics import CODES, ModelCounters
from modelport.serve.models import ServedModel
from modelport.serve.table import ModelTable

_NEVER: Final = {"count": 0, "ns": 0}


def model_statistics(
    table: ModelTable, name: str = "", version: str | None = None
) -> list[dict[str, Any]]:
    """The list ``model_stats``.

    Parameters
    ----------
    table : ModelTable
    name : str
        Empty: all models, also those that were unloaded.
    version : str or None
        None: all versions.

    Raises
    ------
    NotFoundError
        For a model or version that there is not.
    """
    if not name:
        models = table.models
    elif version is None:
        models = table.versions(name)
    else:
        models = [table.get(name, version)]
    return [_of(model, table.metrics.summed(model.index)) for model in models]


def _of(model: ServedModel, numbers: list[float]) -> dict[str, Any]:
    """Statistics of one model version from its `modelport.serve.metrics.ModelCounters`.

    A request waits, is computed, or both at once with others; what it did not spend in the
    model, of the time between decoding and encoding, it spent in the queue.
    """
    answered = int(sum(numbers[: len(CODES) + 1]))
    good = int(numbers[CODES.index(200)])
    read, waited, written = (
        numbers[position]
        for position in (
            ModelCounters.INPUT_SECONDS,
            ModelCounters.WAIT_SECONDS,
            ModelCounters.OUTPUT_SECONDS,
        )
    )
    # Executions count when they end, requests when they are answered: between the two, and for
    # requests that failed later, there is more in the first sum than in the second.
    computed = min(numbers[ModelCounters.INFER_SECONDS], waited)
    spent = read + waited + written
    return {
        "name": model.spec.name,
        "version": str(model.spec.version),
        "last_inference": int(numbers[ModelCounters.LAST] * 1000),
        "inference_count": int(numbers[ModelCounters.ROWS]),
        "execution_count": int(numbers[ModelCounters.EXECUTIONS]),
        "inference_stats": {
            "success": _duration(good, spent),
            "fail": _duration(answered - good, numbers[ModelCounters.SECONDS] - spent),
            "queue": _duration(good, waited - computed),
            "compute_input": _duration(good, read),
            "compute_infer": _duration(good, computed),
            "compute_output": _duration(good, written),
            "cache_hit": dict(_NEVER),
            "cache_miss": dict(_NEVER),
        },
        "response_stats": {},
        "batch_stats": list(_batches(model)),
        "memory_usage": [],
    }


def _batches(model: ServedModel) -> Iterator[dict[str, Any]]:
    """By rows, the executions; reading and writing are counted by request, not by batch."""
    sums: dict[int, list[float]] = {}
    for counters in (model.counters, model.thread_counters):
        for rows, (executions, seconds) in counters.batches.copy().items():
            before = sums.get(rows, (0.0, 0.0))
            sums[rows] = [before[0] + executions, before[1] + seconds]
    for rows, (executions, seconds) in sorted(sums.items()):
        yield {
            "batch_size": rows,
            "compute_input": dict(_NEVER),
            "compute_infer": _duration(int(executions), seconds),
            "compute_output": dict(_NEVER),
        }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": max(0, round(seconds * 1e9))}
