"""The codec of TensorFlow's ``TensorProto``, against protobuf and against its own inverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelport.core.errors import InputError, LimitError, SignatureError
from modelport.core.tensors import NUMPY_DTYPES, Array, TensorSpec
from modelport.serve.protos import message
from modelport.serve.tfserving.tensor_proto import DATATYPES, NUMBERS, decode, encode, varint

TensorProto = message("tensorflow.TensorProto")
NUMERIC = [name for name, dtype in NUMPY_DTYPES.items() if dtype.kind != "O"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def spec_of(dtype: str, rank: int = 1) -> TensorSpec:
    return TensorSpec("x", dtype, tuple(f"d{i}" for i in range(rank)))


def proto_of(dtype: str, shape: tuple[int, ...], **fields: Any) -> Any:
    proto = TensorProto(dtype=NUMBERS[dtype], **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def same(left: Array, right: Array) -> None:
    """Bit for bit; NaN equals itself."""
    assert left.shape == right.shape
    assert left.dtype == right.dtype
    if left.dtype.kind == "O":
        assert left.tolist() == right.tolist()
    else:
        assert left.tobytes() == right.tobytes()


@st.composite
def arrays(draw: Any) -> tuple[str, Array]:
    dtype = draw(st.sampled_from([*NUMERIC, "string", "bytes"]))
    shape = draw(SHAPES)
    if dtype in NUMERIC:
        return dtype, draw(hnp.arrays(np.dtype(dtype), shape))
    items = st.text() if dtype == "string" else st.binary()
    count = int(np.prod(shape))
    array = np.empty(count, object)
    array[:] = draw(st.lists(items, min_size=count, max_size=count))
    return dtype, array.reshape(shape)


@given(arrays())
def test_round_trip_through_typed_values(given: tuple[str, Array]) -> None:
    dtype, array = given
    proto = TensorProto.FromString(encode(array, dtype))
    assert proto.dtype == NUMBERS[dtype]
    assert [dim.size for dim in proto.tensor_shape.dim] == list(array.shape)
    assert not proto.tensor_content
    same(decode(proto, spec_of(dtype, array.ndim)), array)


@given(st.sampled_from(NUMERIC), st.data())
def test_round_trip_through_content(dtype: str, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(np.dtype(dtype), SHAPES))
    proto = proto_of(dtype, array.shape, tensor_content=array.tobytes())
    same(decode(proto, spec_of(dtype, array.ndim)), array)


@given(st.integers(-(2**63), 2**64 - 1))
def test_varints_are_protobufs(value: int) -> None:
    field = "uint64_val" if value >= 0 else "int64_val"
    number = {"uint64_val": 17, "int64_val": 10}[field]
    raw = varint(number << 3 | 2) + varint(len(varint(value))) + varint(value)
    assert list(getattr(TensorProto.FromString(raw), field)) == [value]


@pytest.mark.parametrize("dtype", [*NUMERIC, "string"])
def test_slices_are_written_in_order(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).T[::2].astype(NUMPY_DTYPES[dtype])
    if dtype == "string":
        array = np.vectorize(str, otypes=[object])(array)
    same(decode(TensorProto.FromString(encode(array, dtype)), spec_of(dtype, 2)), array.copy())


FIELDS = {
    "float32": ("float_val", [1.5, -2.0]),
    "float64": ("double_val", [1.5, 1e-300]),
    **{d: ("int_val", [3, 100]) for d in ("int8", "int16", "int32", "uint8", "uint16")},
    "int64": ("int64_val", [3, -(2**63)]),
    "uint32": ("uint32_val", [3, 2**32 - 1]),
    "uint64": ("uint64_val", [3, 2**64 - 1]),
    "bool": ("bool_val", [False, True]),
    "string": ("string_val", [b"a", "ü".encode()]),
    "bytes": ("string_val", [b"a", b"\xff"]),
}


@pytest.mark.parametrize("dtype", FIELDS)
def test_the_last_value_repeats(dtype: str) -> None:
    field, values = FIELDS[dtype]
    expected = [v.decode() for v in values] if dtype == "string" else values
    for count in (1, 2):
        proto = proto_of(dtype, (2, 2), **{field: values[:count]})
        array = decode(proto, spec_of(dtype, 2))
        want = (expected[:count] + [expected[count - 1]] * 4)[:4]
        assert array.ravel().tolist() == want
    zero = {"string": "", "bytes": b""}.get(dtype, 0)
    assert decode(proto_of(dtype, (3,)), spec_of(dtype)).tolist() == [zero] * 3
    assert decode(proto_of(dtype, (0,)), spec_of(dtype)).shape == (0,)
    # A scalar has one element, and no dimension.
    assert decode(proto_of(dtype, (), **{field: values[:1]}), spec_of(dtype, 0)).shape == ()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bool"])
@pytest.mark.parametrize("count", [15, 16, 17, 200, 40_000])
def test_long_typed_values(dtype: str, count: int) -> None:
    array = np.random.default_rng(count).normal(size=count).round().astype(dtype)
    proto = proto_of(dtype, (count + 3, 1), **{FIELDS[dtype][0]: array.tolist()})
    # Other fields lie around them on the wire, known ones and unknown ones.
    proto.version_number = 300
    proto.int_val.extend([1, 2, 3])
    proto.half_val.append(1)
    proto.string_val.append(b"x" * 300)
    proto.tensor_shape.dim[0].name = "batch" * 50
    raw = proto.SerializeToString()
    unknown = (  # fields 100 to 103, of four wire types
        b"\xa2\x06\x03abc\xa8\x06\x07\xb5\x06\xff\xff\xff\xff\xb9\x06" + b"\xff" * 8
    )
    for body in (raw, raw + unknown, unknown + raw):
        found = decode(TensorProto.FromString(body), spec_of(dtype, 2))
        same(found, np.append(array, array[[-1] * 3])[:, np.newaxis])


def test_halves_are_bit_patterns() -> None:
    values = np.array([1.5, -0.0, np.inf, 6e-8], np.float16)
    bits = values.view(np.uint16).tolist()
    assert list(TensorProto.FromString(encode(values, "float16")).half_val) == bits
    same(decode(proto_of("float16", (4,), half_val=bits), spec_of("float16")), values)
    one = decode(proto_of("float16", (2,), half_val=[0x3C00]), spec_of("float16"))
    assert one.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("dtype", "proto", "kind", "text"),
    [
        ("float32", proto_of("float64", (1,)), SignatureError, "DT_DOUBLE, expected DT_FLOAT"),
        ("float32", TensorProto(dtype=14), SignatureError, "DT_BFLOAT16"),
        ("float32", TensorProto(dtype=999), SignatureError, "999"),
        ("float32", proto_of("float32", (1,), float_val=[1, 2]), InputError, "needs 1"),
        ("float32", proto_of("float32", (), float_val=[1, 2]), InputError, "needs 1"),
        ("float32", proto_of("float32", (0,), float_val=[1]), InputError, "needs 0"),
        ("float32", proto_of("float32", (-1,), float_val=[1]), InputError, "from 0"),
        ("float32", proto_of("float32", (2,), tensor_content=b"1234567"), InputError, "needs 8"),
        ("float32", proto_of("float32", (2,), tensor_content=b"1" * 12), InputError, "needs 8"),
        ("bool", proto_of("bool", (2,), tensor_content=b"\0\2"), SignatureError, "other than"),
        ("string", proto_of("string", (2,), tensor_content=b"ab"), InputError, "string_val"),
        ("string", proto_of("string", (1,), string_val=[b"\xff"]), SignatureError, "UTF-8"),
        ("int8", proto_of("int8", (1,), int_val=[128]), SignatureError, "int8's range"),
        ("uint8", proto_of("uint8", (1,), int_val=[-1]), SignatureError, "uint8's range"),
        ("uint16", proto_of("uint16", (1,), int_val=[65536]), SignatureError, "uint16's range"),
        ("float16", proto_of("float16", (1,), half_val=[65536]), SignatureError, "half_val"),
        ("float16", proto_of("float16", (1,), half_val=[-1]), SignatureError, "half_val"),
        ("float32", proto_of("float32", (2**30,), float_val=[1]), LimitError, "at most"),
        ("float32", proto_of("float32", (2**62, 4), float_val=[1]), InputError, "too many"),
        ("float32", proto_of("float32", (2**62, 4, 0)), InputError, "too many"),
        ("float32", proto_of("float32", (1,) * 40, float_val=[1]), InputError, "dimensions"),
    ],
    ids=str,
)
def test_messages_that_contradict_themselves(
    dtype: str, proto: Any, kind: type[InputError], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        decode(proto, spec_of(dtype))
    assert "input x" in caught.value.message


def test_a_shape_of_unknown_rank() -> None:
    proto = TensorProto(dtype=1)
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(InputError, match="unknown rank"):
        decode(proto, spec_of("float32"))


def test_the_tables_are_tensorflows() -> None:
    types = TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name
    for dtype, name in DATATYPES.items():
        assert types[name].number == NUMBERS[dtype]
