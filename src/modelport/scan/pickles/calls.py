"""What a file may call while it loads, with which arguments, and which state it may set.

A name on the allow-list is not enough: ``numpy…scalar(dtype("O"), x)`` returns ``x`` itself, and
``__randomstate_ctor(x, f)`` calls ``f(x)``. Each reconstructor is held to the arguments that
honest pickles give it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any, Final

from modelport.core.allowed_globals import is_model_class
from modelport.scan.pickles.dtypes import element_count
from modelport.scan.pickles.standins import Made, Named, costs_much_to_hash, is_made_by, is_named
from modelport.scan.trees.boosters import BOOSTER_STATES

Arguments = tuple[Any, ...]

# Their fields are their arguments.
_NAMED_TUPLES: Final = frozenset({"_ImputerTriplet"})
_NUMBERS: Final = (int, float, bool)
_RECONSTRUCT: Final = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
_SCALAR: Final = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
_FROM_BUFFER: Final = ("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer")
_BIT_GENERATOR: Final = "numpy.random._pickle.__bit_generator_ctor"
_FACTORIES: Final = frozenset(
    {
        "collections.OrderedDict",  # LightGBM's best_score
        *(f"builtins.{name}" for name in ("dict", "float", "int", "list", "set", "str")),
    }
)
_INDEX_KEYS: Final = frozenset({"data", "name", "names", "dtype", "start", "stop", "step"})
_CHECK_ARRAY: Final = "sklearn.utils.validation.check_array"

#: Whose instances a file may fill with ``SETITEMS``.
DICT_LIKE: Final = frozenset(
    {
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "sklearn.utils.Bunch",
        "sklearn.utils._bunch.Bunch",
    }
)


def call_problem(callee: Named, arguments: Arguments) -> str:
    """Why calling `callee` with `arguments` is refused; empty when it is harmless."""
    rule = _CALLS.get(callee.full) or _sklearn_rule(callee)
    if rule is None:
        return "it may be mentioned and not called"
    return "" if rule(arguments) else "called with arguments that no honest file gives it"


def new_problem(cls: Named, arguments: Arguments) -> str:
    """Why making a bare instance of `cls` is refused; empty when it is harmless."""
    if cls.full in ("builtins.object", "collections.OrderedDict") and not arguments:
        return ""
    if not is_model_class(cls.module, cls.name):
        return "no instances of it are made by honest files"
    if arguments and cls.name not in _NAMED_TUPLES:
        return "made with arguments that no honest file gives it"
    return ""


def state_problem(made: Made, state: object) -> str:
    """Why setting `state` on `made` is refused; empty when it is harmless."""
    if made.built:
        return "its state is set twice"
    rule = _STATES.get(made.by.full)
    if rule is None and (made.bare or made.by.full == "sklearn.tree._tree.Tree"):
        rule = _is_attributes
    if rule is None:
        return "no honest file sets a state on it"
    return "" if rule(state) else "set to a state that no honest file gives it"


def _sklearn_rule(callee: Named) -> Callable[[Arguments], bool] | None:
    """Rules for scikit-learn's compiled classes, which come in families."""
    if callee.name.startswith("__pyx_unpickle_Cy"):
        return lambda a: len(a) == 3 and _is_beside(a[0], callee) and _only(a[2], _NUMBERS)
    if callee.module in ("sklearn._loss._loss", "_loss", "sklearn.linear_model._sgd_fast"):
        return lambda a: len(a) < 5 and _only(a, _NUMBERS)
    if callee.name.startswith("newObj") and callee.module.startswith("sklearn."):
        return lambda a: len(a) == 1 and _is_beside(a[0], callee)
    return None


def _is_beside(value: object, function: Named) -> bool:
    """Whether `value` is a class of the same compiled module as the function that makes it."""
    return isinstance(value, Named) and value.module == function.module and value.name[0].isupper()


def _only(values: object, types: tuple[type, ...]) -> bool:
    return isinstance(values, tuple) and all(type(value) in types for value in values)


def _is_bytes(value: object) -> bool:
    return type(value) in (bytes, bytearray) or is_made_by(
        value, "_codecs.encode", "builtins.bytes", "builtins.bytearray"
    )


def _is_array(value: object) -> bool:
    return is_made_by(value, "numpy.ndarray", *_RECONSTRUCT, *_FROM_BUFFER)


def _is_plain(value: object) -> bool:
    """Whether it is data: no class, no function, no instance of a model."""
    return isinstance(value, str | bytes | int | float | None)


def _is_element_type(value: object, *, objects: bool = False) -> bool:
    return (
        isinstance(value, Made)
        and value.dtype is not None
        and (objects or not value.dtype.hasobject)
    )


def _is_attributes(state: object) -> bool:
    """Whether it is a dictionary of attributes, none of them Python's own."""
    return type(state) is dict and not any(
        type(key) is not str or (key.startswith("__") and key.endswith("__")) for key in state
    )


def _reconstructor(a: Arguments) -> bool:
    """Protocols 0 and 1: ``copyreg._reconstructor(cls, base, state)``."""
    if len(a) != 3 or not isinstance(a[0], Named) or not isinstance(a[1], Named):
        return False
    cls, base, state = a
    if not is_model_class(cls.module, cls.name) and cls.full != "builtins.object":
        return False
    if cls.full in BOOSTER_STATES:  # its state is checked under its own name only
        return False
    return (
        (base.full == "builtins.object" and state is None)
        or (base.full == "builtins.dict" and type(state) is dict)
        or (base.full == "builtins.tuple" and cls.name in _NAMED_TUPLES)
    )


def _array_state(state: object) -> bool:
    """``ndarray.__setstate__((version, shape, dtype, is_fortran, data))``."""
    if not isinstance(state, tuple) or len(state) != 5:
        return False
    version, shape, dtype, fortran, data = state
    count = element_count(shape)
    if version != 1 or count is None or type(fortran) not in (bool, int):
        return False
    if _is_element_type(dtype):
        return _is_bytes(data)
    return _is_element_type(dtype, objects=True) and type(data) is list and len(data) == count


def _masked_state(state: object) -> bool:
    """``MaskedArray.__setstate__((version, shape, dtype, is_fortran, data, mask, fill))``."""
    return (
        isinstance(state, tuple)
        and len(state) == 7
        and _array_state(state[:5])
        and _is_bytes(state[5])
        and (_is_plain(state[6]) or _is_array(state[6]) or is_made_by(state[6], *_SCALAR))
    )


def _random_ctor(a: Arguments) -> bool:
    """``__randomstate_ctor(bit_generator)``, or NumPy 1's ``(name, __bit_generator_ctor)``."""
    if len(a) == 2:
        return type(a[0]) is str and is_named(a[1], _BIT_GENERATOR)
    return len(a) == 0 or (len(a) == 1 and (type(a[0]) is str or is_made_by(a[0], _BIT_GENERATOR)))


def _bit_generator(a: Arguments) -> bool:
    if len(a) != 1:
        return False
    return type(a[0]) is str or (
        isinstance(a[0], Named) and a[0].module.startswith("numpy.random._")
    )


def _new_index(a: Arguments) -> bool:
    return (
        len(a) == 2
        and isinstance(a[0], Named)
        and a[0].name in ("Index", "RangeIndex")
        and _is_attributes(a[1])
        and _INDEX_KEYS.issuperset(a[1])
    )


def _reconstruct(a: Arguments) -> bool:
    """``_reconstruct(ndarray, (0,), b"b")``: an empty array, to be filled by its state."""
    return (
        len(a) == 3
        and isinstance(a[0], Named)
        and a[0].name in ("ndarray", "matrix")
        and a[1] == (0,)
        and _is_bytes(a[2])
    )


def _scalar(a: Arguments) -> bool:
    return len(a) == 2 and _is_element_type(a[0]) and _is_bytes(a[1])


def _from_buffer(a: Arguments) -> bool:
    return (
        len(a) == 4
        and _is_bytes(a[0])
        and _is_element_type(a[1])
        and element_count(a[2]) is not None
        and a[3] in ("C", "F")
    )


def _one_list(a: Arguments) -> bool:
    return not a or (len(a) == 1 and type(a[0]) is list and not costs_much_to_hash(*a[0]))


def _some_bytes(a: Arguments) -> bool:
    return len(a) == 0 or (len(a) == 1 and _is_bytes(a[0]))


def _moment(a: Arguments) -> bool:
    return 1 <= len(a) <= 2 and _is_bytes(a[0]) and all(_is_zone(zone) for zone in a[1:])


def _is_zone(value: object) -> bool:
    return is_made_by(value, "datetime.timezone")


def _partial_state(state: object) -> bool:
    """``partial.__setstate__((function, arguments, keywords, attributes))``."""
    return (
        isinstance(state, tuple)
        and len(state) == 4
        and is_named(state[0], _CHECK_ARRAY)
        and state[1] == ()
        and _is_attributes(state[2])
        and all(_is_plain(v) or _is_number_type(v) for v in state[2].values())
        and state[3] in (None, {})
    )


def _is_number_type(value: object) -> bool:
    """Whether it is a class such as ``numpy.float64``, or a list of them."""
    values = value if type(value) is list else [value]
    return all(isinstance(v, Named) and v.module in ("numpy", "builtins") for v in values)


def _booster_state(name: str, state: object) -> bool:
    return isinstance(state, dict) and _is_attributes(state) and BOOSTER_STATES[name](state)


def _is_block_manager_state(state: object) -> bool:
    """Pandas' ``([axes], [values], [items], {version: …})``."""
    return (
        isinstance(state, tuple)
        and len(state) == 4
        and all(type(part) is list for part in state[:3])
        and type(state[3]) is dict
        and all(not isinstance(value, Named) for value in chain(*state[:3]))
    )


_CALLS: Final[Mapping[str, Callable[[Arguments], bool]]] = {
    "_codecs.encode": lambda a: len(a) == 2 and type(a[0]) is str and a[1] == "latin1",
    "builtins.bytearray": _some_bytes,
    "builtins.bytes": _some_bytes,
    "builtins.complex": lambda a: _only(a, _NUMBERS),
    "builtins.frozenset": _one_list,
    "builtins.object": lambda a: not a,
    "builtins.range": lambda a: _only(a, (int,)),
    "builtins.set": _one_list,
    "builtins.slice": lambda a: _only(a, (int, str, type(None))),
    "collections.Counter": lambda a: not a or (len(a) == 1 and type(a[0]) is dict),
    "collections.OrderedDict": lambda a: not a,
    "collections.defaultdict": lambda a: (
        not a or (len(a) == 1 and (a[0] is None or getattr(a[0], "full", "") in _FACTORIES))
    ),
    "collections.deque": lambda a: (
        not a or (type(a[0]) in (list, tuple) and _only(a[1:], (int, type(None))))
    ),
    "copyreg._reconstructor": _reconstructor,
    "functools.partial": lambda a: len(a) == 1 and is_named(a[0], _CHECK_ARRAY),
    "datetime.date": _some_bytes,
    "datetime.datetime": _moment,
    "datetime.time": _moment,
    "datetime.timedelta": lambda a: _only(a, (int,)),
    "datetime.timezone": lambda a: len(a) == 1 and is_made_by(a[0], "datetime.timedelta"),
    "decimal.Decimal": lambda a: len(a) == 1 and type(a[0]) is str and len(a[0]) < 1000,
    "numpy.dtype": lambda a: True,  # the result is checked, see `DryUnpickler`
    "numpy.ma.core.MaskedConstant": lambda a: not a,
    "numpy.ma.core._mareconstruct": lambda a: (
        len(a) == 4
        and is_named(a[1], "numpy.ndarray")
        and getattr(a[0], "name", "") == "MaskedArray"
        and a[2] == (0,)
        and a[3] in ("b", b"b")
    ),
    "numpy.random._pickle.__generator_ctor": _random_ctor,
    "numpy.random._pickle.__randomstate_ctor": _random_ctor,
    _BIT_GENERATOR: _bit_generator,
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": lambda a: (
        len(a) == 3
        and is_named(a[0], "numpy.random.bit_generator.SeedSequence")
        and type(a[1]) is int
        and a[2] is None
    ),
    "pandas._libs.internals._unpickle_block": lambda a: (
        len(a) == 3
        and _is_array(a[0])
        and (_is_array(a[1]) or is_made_by(a[1], "builtins.slice"))
        and type(a[2]) is int
    ),
    "pandas.core.indexes.base._new_Index": _new_index,
    "pandas.core.internals.managers.BlockManager": lambda a: (
        len(a) == 2
        and isinstance(a[0], tuple)
        and type(a[1]) is list
        and all(is_made_by(block, "pandas._libs.internals._unpickle_block") for block in a[0])
        and all(is_made_by(axis, "pandas.core.indexes.base._new_Index") for axis in a[1])
    ),
    "sklearn.tree._tree.Tree": lambda a: (
        len(a) == 3 and type(a[0]) is int and _is_array(a[1]) and type(a[2]) is int
    ),
    **dict.fromkeys(_RECONSTRUCT, _reconstruct),
    **dict.fromkeys(_SCALAR, _scalar),
    **dict.fromkeys(_FROM_BUFFER, _from_buffer),
}

_STATES: Final[Mapping[str, Callable[[object], bool]]] = {
    **{name: partial(_booster_state, name) for name in BOOSTER_STATES},
    **dict.fromkeys(_RECONSTRUCT, _array_state),
    "copyreg._reconstructor": _is_attributes,
    "functools.partial": _partial_state,
    "numpy.ma.core._mareconstruct": _masked_state,
    "numpy.random._pickle.__generator_ctor": _is_attributes,
    "numpy.random._pickle.__randomstate_ctor": _is_attributes,
    _BIT_GENERATOR: lambda s: (
        _is_attributes(s) or (isinstance(s, tuple) and len(s) == 2 and _is_attributes(s[0]))
    ),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": lambda s: (
        isinstance(s, tuple) and len(s) == 5
    ),
    "pandas.core.internals.managers.SingleBlockManager": _is_block_manager_state,
    **{
        f"sklearn.{module}.newObj{bits}": lambda s: isinstance(s, tuple)
        for module in ("metrics._dist_metrics", "neighbors._ball_tree", "neighbors._kd_tree")
        for bits in ("", "32", "64")
    },
}
