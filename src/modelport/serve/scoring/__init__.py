"""Bodies by content type and answers by ``Accept``: what the scoring protocols share.

A protocol whose one path takes any body calls `read` in its ``decode`` and `write` in its
``encode``; `error` is MLflow's shape of an error, with the key ``error`` that others look for::

    def decode(self, request, model):
        tensors, context = scoring.read(request, model)
        return Call(tensors, context=context)

    def encode(self, call, outputs, model):
        return scoring.write(outputs, call.context, model)

Formats that are read: JSON (MLflow's ``dataframe_split``, ``dataframe_records``, ``instances``,
``inputs``; bare lists; Open Inference V2), JSON Lines, CSV, ``.npy``, Parquet, images, plain text,
raw tensors. Formats that are written: JSON, JSON Lines, CSV, ``.npy``.
"""

from modelport.serve.scoring.answers import Context, write
from modelport.serve.scoring.bodies import read
from modelport.serve.scoring.errors import error, wrong_method
from modelport.serve.scoring.schemas import answer_schemas, body_schemas, error_schema

__all__ = [
    "Context",
    "answer_schemas",
    "body_schemas",
    "error",
    "error_schema",
    "read",
    "write",
    "wrong_method",
]
