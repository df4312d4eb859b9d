"""What a file or a folder looks like, for the message that we cannot read it, and what helps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from modelport.core.torch_globals import LEGACY_TORCH_MAGIC
from modelport.scan.archives.zip_archive import MAGIC, member_names
from modelport.scan.pickles.compression import compression_of, peek


@dataclass(frozen=True)
class Guess:
    """What a source looks like.

    Parameters
    ----------
    name : str
        For people: ``a fastText model``.
    hint : str
        What to do instead; empty where nothing is known.
    """

    name: str
    hint: str = ""


_SIGNATURES: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5)", ""),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file (.mat)",
     "export the network with MATLAB's exportONNXNetwork"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", "an array is no model; give it as --sample"),
    (0, b"PAR1", "a Parquet table", "a table is no model; give it as --sample"),
    (4, b"TFL3", "a TensorFlow Lite model", ""),
    (0, b"tree\nversion=", "a LightGBM text model", ""),
    (0, LEGACY_TORCH_MAGIC, "a PyTorch file of before version 1.6", ""),
    (0, b"\xba\x16\x4f\x2f", "a fastText model (.bin, .ftz)",
     "fastText cannot be exported; train the classifier again with scikit-learn's "
     "HashingVectorizer and a linear model, and pack that"),
    (0, b"GGUF", "a GGUF model (llama.cpp)",
     "GGUF holds quantized weights for llama.cpp only; export the original weights to ONNX "
     "(optimum-cli export onnx), and pack that"),
    (0, b"ggml", "a GGML model (llama.cpp)", "export the original weights to ONNX"),
    (0, b"ftrt", "a TensorRT engine",
     "an engine is compiled for one graphics card; pack the ONNX file that it was built from"),
    (0, b"ptrt", "a TensorRT engine",
     "an engine is compiled for one graphics card; pack the ONNX file that it was built from"),
    (0, b"\x12\x01\x00\x00\x00\x00\x00\x00", "an MXNet parameters file (.params)",
     "convert it with mxnet.onnx.export_model, and pack the .onnx file"),
    (0, b"RDX3\n", "an R workspace (.RData)", "export the model from R: to PMML or ONNX"),
    (0, b"RDX2\n", "an R workspace (.RData)", "export the model from R: to PMML or ONNX"),
    (0, b"X\n\x00\x00\x00", "an R object (.rds)",
     "R objects cannot be read; save the booster itself from R (xgb.save, lgb.save), or train "
     "the model in Python"),
    (0, b"\x89PNG", "a PNG picture", ""),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"\x7fELF", "a Linux program", ""),
    (0, b"MZ", "a Windows program", ""),
    (0, b"#!", "a script", ""),
    (257, b"ustar", "a tar archive", ""),
)  # fmt: skip

_BY_TEXT: Final[tuple[tuple[re.Pattern[bytes], str, str], ...]] = (
    (re.compile(rb"<opencv_storage"), "an OpenCV file (a Haar cascade)",
     "cascades run in OpenCV only; use an ONNX face detector such as YuNet or UltraFace"),
    (re.compile(rb"<PMML[ >]"), "an XML document (PMML)",
     "train the model again in Python, or pack the pickle that the PMML was made from"),
    (re.compile(rb"<net [^>]*version=\"\d+\""), "an OpenVINO model (.xml with .bin)",
     "pack the ONNX file, or the original model, that it was converted from"),
    (re.compile(rb"<\?xml"), "an XML document", ""),
    (re.compile(rb"^\s*\[net(work)?\]\s*$", re.M), "a Darknet configuration (.cfg)",
     "convert it with a Darknet-to-ONNX converter, and pack the .onnx file"),
    (re.compile(rb"^\s*layers?\s*\{", re.M), "a Caffe network (.prototxt)",
     "convert it to ONNX with caffe2onnx or MMdnn, and pack the .onnx file"),
    (re.compile(rb"\"modelTopology\"|\"weightsManifest\""), "a TensorFlow.js model",
     "pack the Keras model or SavedModel that it was converted from "
     "(tensorflowjs_converter --output_format keras turns layers models back)"),
    (re.compile(rb"\"nodes\".*\"arg_nodes\"", re.S), "an MXNet network (-symbol.json)",
     "convert it with mxnet.onnx.export_model, and pack the .onnx file"),
    (re.compile(rb"^#\s*(h2o|H2O)", re.M), "an H2O model", "save it as ONNX or MOJO"),
)  # fmt: skip
_PEEKED: Final = 1 << 16
# Code that speaks of a format is not of it.
_SOURCE_CODE: Final = frozenset({".c", ".cpp", ".h", ".html", ".js", ".md", ".py", ".rst", ".ts"})

_BY_SUFFIX: Final[Mapping[str, tuple[str, str]]] = {
    ".mlmodel": ("a Core ML model", "pack the model that it was converted from (coremltools)"),
    ".caffemodel": ("Caffe weights", "convert them to ONNX with caffe2onnx or MMdnn"),
    ".weights": ("Darknet weights", "convert them with a Darknet-to-ONNX converter"),
    ".pdmodel": ("a PaddlePaddle model", "convert it with paddle2onnx, and pack the .onnx file"),
    ".pdiparams": (
        "PaddlePaddle parameters",
        "convert the model with paddle2onnx, and pack the .onnx file",
    ),
    ".params": ("an MXNet parameters file", "convert it with mxnet.onnx.export_model"),
    ".engine": ("a TensorRT engine", "pack the ONNX file that it was built from"),
    ".trt": ("a TensorRT engine", "pack the ONNX file that it was built from"),
    ".rds": ("an R object", "save the booster itself from R, or train the model in Python"),
    ".mat": ("a MATLAB file", "export the network with MATLAB's exportONNXNetwork"),
    ".mojo": ("an H2O model", "H2O models run in Java only; train the model in Python"),
}

#: Files that make the folder that they are in one model.
FOLDER_MARKS: Final = ("MLmodel", "saved_model.pb", "saved_model.pbtxt")
_FOLDERS: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (re.compile(r"Data/com\.apple\.CoreML/.+"), "a Core ML package (.mlpackage)",
     "pack the model that it was converted from (coremltools)"),
    (re.compile(r"metadata/part-\d+.*"), "a Spark ML model",
     "convert it with onnxmltools (convert_sparkml), and pack the .onnx file"),
    (re.compile(r"model\.pdmodel|.+\.pdmodel|__model__"), "a PaddlePaddle model",
     "convert it with paddle2onnx, and pack the .onnx file"),
    (re.compile(r"group\d+-shard\d+of\d+\.bin"), "a TensorFlow.js model",
     "pack the Keras model or SavedModel that it was converted from"),
    (re.compile(r".*\.ckpt\.(meta|index)|checkpoint|.*\.index"), "a TensorFlow checkpoint",
     "save the whole model: model.save(\"model.keras\"), or tf.saved_model.save"),
)  # fmt: skip


def looks_like(content: bytes, name: str = "") -> Guess | None:
    """What a file looks like by its bytes, and where these do not tell, by its ending."""
    for offset, mark, title, hint in _SIGNATURES:
        if content[offset : offset + len(mark)] == mark:
            return Guess(title, hint)
    if content[:2] == b"PK":
        return _archive(content)
    if _is_safetensors(content):
        return Guess("a safetensors file: weights without the model that they belong to")
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    beginning = content[:_PEEKED]
    if b"\0" not in beginning and suffix not in _SOURCE_CODE:
        for pattern, title, hint in _BY_TEXT:
            if pattern.search(beginning):
                return Guess(title, hint)
    kind = compression_of(content)
    unpacked = peek(content, kind) if kind else b""
    if unpacked.startswith((b"X\n\0\0\0", b"RDX")):
        return Guess("an R object (.rds)", _BY_SUFFIX[".rds"][1])
    if suffix in _BY_SUFFIX:
        return Guess(*_BY_SUFFIX[suffix])
    if content.lstrip()[:1] in (b"{", b"["):
        return Guess("a JSON document")
    return Guess(f"a {kind} file") if unpacked else None


def folder_looks_like(names: Iterable[str]) -> Guess | None:
    """What a folder looks like by the files in it."""
    every = list(names)
    for pattern, title, hint in _FOLDERS:
        if any(pattern.fullmatch(name) for name in every):
            return Guess(title, hint)
    return None


def model_in_zip(names: list[str]) -> Guess | None:
    """Which format of one model a zip archive is, by its members; None for a plain archive."""
    # PyTorch's reader finds members whatever their case is.
    lower = [name.lower() for name in names]
    plain = {name.partition("/")[2] for name in lower} | set(lower)
    if "archive_format" in plain or "serialized_exported_program.json" in plain:
        return Guess("a PyTorch exported program (.pt2)")
    if "data.pkl" in plain:
        return Guess("a PyTorch file (zip with data.pkl)")
    if "model.weights.h5" in names or {"config.json", "metadata.json"} <= set(names):
        return Guess("a Keras model (.keras)")
    if "schema.json" in names and "MLmodel" not in names:
        return Guess("a skops file")
    if "model.ini" in names:
        return Guess("an H2O MOJO", "H2O models run in Java only; train the model in Python")
    if "MAR-INF/MANIFEST.json" in names:
        return Guess("a TorchServe archive (.mar)")
    if names and all(name.endswith(".npy") for name in names):
        return Guess("NumPy arrays (.npz)", "arrays are no model; give them as --sample")
    return None


def _archive(content: bytes) -> Guess:
    names = member_names(content)
    if not names:
        if content.startswith(MAGIC):
            return Guess("a damaged zip archive", "save or download the file again")
        return Guess("an empty zip archive")
    return model_in_zip(names) or Guess("a zip archive")


def _is_safetensors(content: bytes) -> bool:
    size = int.from_bytes(content[:8], "little")
    return content[8:10] == b'{"' and size <= len(content)
