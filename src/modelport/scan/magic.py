"""What a file looks like by its first bytes, for the message that we cannot read it."""

from __future__ import annotations

import io
import zipfile
from typing import Final

from modelport.scan.compression import compression_of, peek

_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5)"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"PAR1", "a Parquet table"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"tree\nversion=", "a LightGBM text model"),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file of before version 1.6"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"<?xml", "an XML document (PMML?)"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a Linux program"),
    (0, b"MZ", "a Windows program"),
    (0, b"#!", "a script"),
    (257, b"ustar", "a tar archive"),
)
_SAFETENSORS_HEADER: Final = 8


def looks_like(content: bytes) -> str:
    """A name for people, or an empty string."""
    for offset, mark, name in _SIGNATURES:
        if content[offset : offset + len(mark)] == mark:
            return name
    if content[:2] == b"PK":
        return _archive(content)
    if _is_safetensors(content):
        return "a safetensors file: weights without the model that they belong to"
    if content.lstrip()[:1] in (b"{", b"["):
        return "a JSON document"
    kind = compression_of(content)
    return f"a {kind} file" if peek(content, kind) else ""


def _archive(content: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return "a damaged zip archive"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "a PyTorch file (zip with data.pkl)"
    if "model.weights.h5" in names:
        return "a Keras model (.keras)"
    if any(name.endswith("archive_format") for name in names):
        return "a PyTorch exported program (.pt2)"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)"
    return "a zip archive"


def _is_safetensors(content: bytes) -> bool:
    size = int.from_bytes(content[:_SAFETENSORS_HEADER], "little")
    start = content[_SAFETENSORS_HEADER : _SAFETENSORS_HEADER + 2]
    return start == b'{"' and size <= len(content)
