"""Which names a file of ``torch.save`` may refer to, besides those that any pickle may.

Used twice, like `modelport.core.allowed_globals`: by the scan, which also checks how each name is
used, and by loaders, as the second line of defence (`is_allowed_in_torch`). The lists follow
``torch/_weights_only_unpickler.py`` (2.13), and add what whole models need: PyTorch's own layers
and the functions that they keep as attributes. ``tests/scan`` holds them to the installed version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from modelport.core.allowed_globals import ARRAY_WRAPPER, is_allowed, refusal


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: How files of ``torch.save`` begin before version 1.6: a pickle of its magic number.
LEGACY_TORCH_MAGIC: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

#: Bytes per element of each storage class that a persistent id may name.
STORAGES: Final[Mapping[str, int]] = {
    **dict.fromkeys(_words("Bool Byte Char QInt8 QUInt8 QUInt4x2 QUInt2x4 Untyped"), 1),
    **dict.fromkeys(_words("Half BFloat16 Short"), 2),
    **dict.fromkeys(_words("Float Int QInt32"), 4),
    **dict.fromkeys(_words("Double Long ComplexFloat"), 8),
    "ComplexDouble": 16,
}
_STORAGE_MODULES: Final = frozenset({"torch", "torch.cuda", "torch.storage"})
#: Bytes per element of the element types that `_rebuild_tensor_v3` may name.
DTYPES: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        _words(
            "bits1x8 bits2x4 bits4x2 bits8 bool float4_e2m1fn_x2 float8_e4m3fn float8_e4m3fnuz"
            " float8_e5m2 float8_e5m2fnuz float8_e8m0fnu int8 qint8 quint2x4 quint4x2 quint8 uint8"
        ),
        1,
    ),
    **dict.fromkeys(_words("bfloat16 bits16 float16 half int16 uint16"), 2),
    **dict.fromkeys(_words("complex32 float float32 int32 qint32 uint32"), 4),
    **dict.fromkeys(_words("complex64 double float64 int64 long uint64"), 8),
    "complex128": 16,
}
QSCHEMES: Final = _words(
    "per_channel_affine per_channel_affine_float_qparams per_channel_symmetric per_tensor_affine"
    " per_tensor_symmetric"
)
_FORMATS: Final = _words("channels_last channels_last_3d contiguous_format preserve_format strided")
_ACTIVATIONS: Final = _words(
    "celu elu gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_softmax logsigmoid"
    " mish relu relu6 rrelu selu sigmoid silu softmax softmin softplus softshrink softsign tanh"
    " tanhshrink threshold"
)
_LOSSES: Final = _words(
    "binary_cross_entropy binary_cross_entropy_with_logits cosine_similarity cross_entropy"
    " huber_loss l1_loss mse_loss nll_loss normalize pairwise_distance smooth_l1_loss"
)

_VALUES: Final[Mapping[str, frozenset[str]]] = {
    "torch": frozenset(DTYPES)
    | QSCHEMES
    | _FORMATS
    | _words("Tensor relu sigmoid tanh softmax log_softmax selu celu abs exp log sqrt"),
    "torch._C._nn": _ACTIVATIONS,
    "torch.nn.functional": _ACTIVATIONS | _LOSSES,
    "torch.nn.parameter": frozenset({"Parameter", "Buffer"}),
}

#: What a file may call; ``scan/torch_calls.py`` has the rule for each one's arguments.
TORCH_RECONSTRUCTORS: Final[Mapping[str, frozenset[str]]] = {
    "pathlib": _words("PosixPath PurePosixPath PureWindowsPath WindowsPath"),
    "torch": frozenset({"Size", "device"}),
    "torch._tensor": frozenset({"_rebuild_from_type_v2"}),
    "torch._utils": _words(
        "_rebuild_meta_tensor_no_storage _rebuild_parameter _rebuild_parameter_with_state"
        " _rebuild_qtensor _rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3"
    ),
    "torch.serialization": frozenset({"_get_layout"}),
}

_LAYER_MODULES: Final = _words(
    "activation adaptive batchnorm channelshuffle container conv distance dropout flatten fold"
    " instancenorm linear loss module normalization padding pixelshuffle pooling rnn sparse"
    " transformer upsampling"
)
_LAYER_NAME = re.compile(r"[A-Z][A-Za-z0-9]*", re.ASCII)
# What these modules import from elsewhere, or define beside their layers.
_NOT_LAYERS: Final = _words(
    "Any BackwardHook Buffer Callable DeviceLikeType F Function Iterator LazyModuleMixin"
    " LinearCrossEntropyOptions Literal Mapping NamedTuple Optional OrderedDict PackedSequence"
    " Parameter Protocol RemovableHandle Self Sequence Size T Tensor TypeVar UninitializedBuffer"
    " UninitializedParameter Union"
)

_REASONS: Final[Mapping[str, str]] = {
    "torch.hub": "downloads code and runs it",
    "torch.jit": "loads further code",
    "torch.load": "loads further code",
    "torch.serialization": "loads further code",
    "torch.storage": "loads further code",
    "torch._utils._rebuild_nested_tensor": "its sizes are not checked when it is loaded",
    "torch._utils._rebuild_sparse_tensor": "its indices are not checked when it is loaded",
}


def is_layer(module: str, name: str) -> bool:
    """Whether it is one of PyTorch's own layers, of which a file may make bare instances."""
    package, _, leaf = module.rpartition(".")
    return (
        package == "torch.nn.modules"
        and leaf in _LAYER_MODULES
        and _LAYER_NAME.fullmatch(name) is not None
        and name not in _NOT_LAYERS
    )


def is_storage(module: str, name: str) -> bool:
    """Whether it is a class of storages, of which a file may speak in persistent ids."""
    kind = name.removesuffix("Storage")
    return (
        module in _STORAGE_MODULES
        and kind != name
        and (kind in STORAGES or (module, kind) == ("torch.storage", "Typed"))
    )


def is_allowed_in_torch(module: str, name: str) -> bool:
    """Whether a file of ``torch.save`` may refer to ``module.name`` at all.

    For loaders this is the last check, not the only one: the scan also checks the arguments of
    every call.
    """
    if (module, name) == ARRAY_WRAPPER:
        return False
    return (
        is_storage(module, name)
        or is_layer(module, name)
        or name in _VALUES.get(module, ())
        or name in TORCH_RECONSTRUCTORS.get(module, ())
        or (module, name) in (("argparse", "Namespace"), ("torch.torch_version", "TorchVersion"))
        or is_allowed(module, name)
    )


def torch_refusal(module: str, name: str) -> str:
    """Why ``module.name`` is refused; empty when it is allowed."""
    if is_allowed_in_torch(module, name):
        return ""
    full = f"{module}.{name}"
    for prefix, reason in _REASONS.items():
        if full == prefix or full.startswith(f"{prefix}."):
            return reason
    return refusal(module, name) or "an array of joblib, which PyTorch does not write"
