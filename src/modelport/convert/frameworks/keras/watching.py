"""What every layer of a Keras model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from modelport.core.tensors import Array


@contextmanager
def watched_layers(model: Any) -> Iterator[list[tuple[str, Array]]]:
    """Collect the layers' answers, by name and in order, while the model is called eagerly.

    A layer calls its own ``call``: one of the instance stands before that of the class.
    """
    seen: list[tuple[str, Array]] = []

    def watch(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            answer = call(*args, **kwargs)
            if keras.ops.is_tensor(answer) and keras.backend.is_float_dtype(answer.dtype):
                seen.append((layer.name, np.asarray(answer)))
            return answer

        return watched

    layers = list(model._flatten_layers(include_self=False))
    try:
        for layer in layers:
            object.__setattr__(layer, "call", watch(layer, layer.call))
        yield seen
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)
