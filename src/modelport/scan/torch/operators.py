"""Which of PyTorch's operators a stored graph may call.

Neither TorchScript nor an exported program is Python: both can only call operators that are
compiled into PyTorch. Some of those read or write files, or open connections. The lists were made
from ``torch._C._jit_get_all_schemas()`` of PyTorch 2.13; what they do not know is refused.
"""

from __future__ import annotations

import re
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NAMESPACES: Final = _words(
    "_quantized aten mkl mkldnn mkldnn_prepacked onednn prim prims profiler quantization quantized"
    " rngprims sparse"
)
#: Operators that touch files, memory by address, or other processes, or run Python.
DANGEROUS: Final = {
    "aten::from_file": "maps a file into memory, and can write it",
    "aten::save": "writes a file",
    "aten::_save": "writes a file",
    "aten::load": "reads a file",
    "aten::from_blob": "makes a tensor of any memory",
    "mkldnn::data_ptr": "tells memory addresses",
    "aten::data_ptr": "tells memory addresses",
    "prim::PythonOp": "runs Python",
    "prim::IgnoredPythonOp": "runs Python",
    "prim::rpc_async": "calls another machine",
    "prim::rpc_remote": "calls another machine",
    "prim::rpc_sync": "calls another machine",
}
# Methods of tensors and texts are operators too: `x.save(path)` is `aten::save`.
DANGEROUS_METHODS: Final = {
    full.rpartition(":")[2]: full for full in DANGEROUS if full.startswith("aten::")
}
_NAME = re.compile(r"\w+", re.ASCII)


def operator_problem(namespace: str, name: str) -> str:
    """Why an operator is refused; empty when it only computes."""
    full = f"{namespace}::{name}"
    if full in DANGEROUS:
        return DANGEROUS[full]
    if namespace not in _NAMESPACES or not _NAME.fullmatch(name):
        return "an operator that is not PyTorch's own"
    return ""
