"""The verbs. Each takes plain values, does one thing, and returns a value.

The command line is a thin layer over this package; so is a notebook.
"""

from modelport.api.build import convert, inspect, pack, scan
from modelport.api.diagnose import doctor
from modelport.api.register import history, list_models, promote, pull, push, rollback
from modelport.api.rows import to_rows
from modelport.api.run import predict, serve
from modelport.core.options import PackOptions, RegistryOptions, ServeOptions

__all__ = [
    "PackOptions",
    "RegistryOptions",
    "ServeOptions",
    "convert",
    "doctor",
    "history",
    "inspect",
    "list_models",
    "pack",
    "predict",
    "promote",
    "pull",
    "push",
    "rollback",
    "scan",
    "serve",
    "to_rows",
]
