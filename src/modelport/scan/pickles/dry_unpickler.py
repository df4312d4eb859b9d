"""Unpickling without importing, constructing or calling anything.

Each instruction that would import or call is replaced by one that takes note and leaves an inert
stand-in on the stack.
"""

from __future__ import annotations

import pickle
from typing import Any, Final

from modelport.core.allowed_globals import python3_name, refusal
from modelport.scan.pickles.arrays import read_array
from modelport.scan.pickles.calls import DICT_LIKE, call_problem, new_problem, state_problem
from modelport.scan.pickles.dtypes import base_dtype, with_state
from modelport.scan.pickles.log import Abandoned, Log
from modelport.scan.pickles.metered_unpickler import WRAPPER, MeteredUnpickler
from modelport.scan.pickles.reader import Reader
from modelport.scan.pickles.standins import ARRAY, Made, Named, costs_much_to_hash

REFUSED: Final = Named("", "", refused=True)


class DryUnpickler(MeteredUnpickler):
    """Read one pickle and note everything that loading it would do.

    Parameters
    ----------
    reader : Reader
    log : Log
        Takes the names and the findings.
    nested : bool
        True for the pickle of an object array inside a joblib file, in which joblib itself
        expects no further arrays.
    """

    def __init__(self, reader: Reader, log: Log, *, nested: bool = False) -> None:
        super().__init__(reader, log)
        self._nested = nested
        self._wrappers = 0
        self._kept: dict[int, object] = {}

    def find_class(self, module: str, name: str) -> Named:
        """Note the name; import nothing."""
        if self.proto < 3:
            module, name = python3_name(module, name)
        why = self.name_problem(module, name)
        named = Named(module, name, refused=bool(why))
        self.log.name(named.full)
        if why:
            self.log.note("global", named.full, why)
        if named.full == WRAPPER:
            if self._nested:
                self.log.note("array", WRAPPER, "inside another array's objects")
            self.on_wrapper()
        return named

    # What is allowed: other formats than plain pickles have their own rules.

    def name_problem(self, module: str, name: str) -> str:
        """Why a name is refused; empty when it is allowed."""
        return refusal(module, name)

    def call_problem(self, callee: Named, arguments: tuple[Any, ...]) -> str:
        """Why a call is refused; empty when it is harmless."""
        return call_problem(callee, arguments)

    def new_problem(self, cls: Named, arguments: tuple[Any, ...]) -> str:
        """Why making a bare instance is refused; empty when it is harmless."""
        return new_problem(cls, arguments)

    def state_problem(self, made: Made, state: object) -> str:
        """Why setting a state is refused; empty when it is harmless."""
        return state_problem(made, state)

    def load_stack_global(self) -> None:
        """As the original, but a computed name is a finding, not damage."""
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is str and type(module) is str:
            self.append(self.find_class(module, name))
        else:
            self.log.note("global", "a computed name", "the name is not written in the file")
            self.append(REFUSED)

    def get_extension(self, code: int) -> None:
        """An extension stands for a name that is registered in the loading process."""
        self.log.note(
            "global", f"extension {code}", "stands for a name that the file does not show"
        )
        self.append(REFUSED)

    def persistent_load(self, pid: Any) -> Named | Made:
        """A persistent id stands for an object outside the file."""
        shown = repr(pid)[:60] if isinstance(pid, str | bytes | int) else "an object"
        self.log.note("global", f"persistent id {shown}", "stands for an object outside the file")
        return REFUSED

    def load_next_buffer(self) -> None:
        """An out-of-band buffer is outside the file too."""
        self.log.note("stream", "out-of-band buffer", "stands for data outside the file")
        self.append(REFUSED)

    def load_readonly_buffer(self) -> None:
        """Only ever follows an out-of-band buffer."""
        self.log.note("stream", "out-of-band buffer", "stands for data outside the file")

    def _call(self, callee: object, arguments: object) -> Made:
        if _is_refused(callee):
            return Made(REFUSED)
        if not isinstance(callee, Named):
            self.log.note("call", _name_of(callee), "calls what another call has returned")
            return Made(REFUSED)
        if not isinstance(arguments, tuple):
            self.log.note("call", callee.full, "called with something else than a tuple")
            return Made(REFUSED)
        made = Made(callee)
        if callee.full == "builtins.bytearray" and arguments and type(arguments[0]) is bytes:
            made.data = arguments[0]
        if callee.full == "numpy.dtype":
            made.dtype, made.single = base_dtype(arguments), True
        problem = self.call_problem(callee, arguments)
        if callee.full == "numpy.dtype" and made.dtype is None:
            problem = "not an element type as NumPy writes it"
        if problem:
            self.log.note("call", callee.full, problem)
        return made

    def load_reduce(self) -> None:
        """Call a function: ``REDUCE``."""
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        """Make an instance without its constructor: ``NEWOBJ``."""
        arguments, cls = self.stack.pop(), self.stack.pop()
        self.append(self._new(cls, arguments))

    def load_newobj_ex(self) -> None:
        """Make an instance with keywords: ``NEWOBJ_EX``."""
        keywords, arguments, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if keywords != {} and isinstance(cls, Named) and not cls.refused:
            self.log.note("call", cls.full, "made with keywords, as no honest file does")
        self.append(self._new(cls, arguments))

    def _new(self, cls: object, arguments: object) -> Made:
        if not isinstance(cls, Named) or cls.refused:
            return self._call(cls, arguments)
        made = Made(cls, bare=True)
        if cls.full == WRAPPER:
            self._wrappers += 1
            made.single = True
        elif not isinstance(arguments, tuple):
            self.log.note("call", cls.full, "made with something else than a tuple")
        elif problem := self.new_problem(cls, arguments):
            self.log.note("call", cls.full, problem)
        return made

    def _instantiate(self, cls: object, arguments: object) -> None:
        """``INST`` and ``OBJ``, which no Python 3 writes."""
        if not _is_refused(cls):
            self.log.note("call", _name_of(cls), "made by an instruction of Python 2")
        self.append(Made(REFUSED))

    def load_build(self) -> None:
        """Set an instance's state, and for joblib read the array that follows."""
        state = self.stack.pop()
        target = self.stack[-1]
        if _is_refused(target):
            return
        if not isinstance(target, Made):
            self.log.note("state", _name_of(target), "it is not an instance, and has no state")
        elif target.by.full == WRAPPER:
            self._wrappers -= 1
            self.stack[-1] = self._array(state)
        else:
            self._keep(state)
            if target.by.full == "numpy.dtype":
                self._complete(target, state)
            elif problem := self.state_problem(target, state):
                self.log.note("state", target.by.full, problem)
            target.built = True

    def _complete(self, target: Made, state: object) -> None:
        dtype = None if target.built or target.dtype is None else with_state(target.dtype, state)
        if dtype is None:
            self.log.note("state", "numpy.dtype", "not an element type as NumPy writes it")
        target.dtype, target.single = dtype, False

    def _keep(self, state: object) -> None:
        """Whose state it is may keep these very dictionaries, so that they must not change."""
        if isinstance(state, tuple):
            self._kept.update({id(part): part for part in state if type(part) is dict})

    def _array(self, state: object) -> Made:
        if self.frame_has_more():
            self.log.note("array", WRAPPER, "used in another way than joblib does")
            raise Abandoned
        if self._nested:
            raise Abandoned  # noted where it was named
        if read_array(state, self.reader, self.log):
            DryUnpickler(self.reader, self.log, nested=True).load()
        return ARRAY

    def _may_fill(self, target: object, kind: type, *, like: frozenset[str]) -> bool:
        """Whether items may be put into `target`; True only for a container of ours."""
        if id(target) in self._kept:
            self.log.note("state", "a state", "changed after it was set")
        if type(target) is kind:
            return True
        if not _is_refused(target) and not (isinstance(target, Made) and target.by.full in like):
            self.log.note("state", _name_of(target), "it is not a container, and has no items")
        return False

    def _fill_list(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if self._may_fill(target, list, like=frozenset({"collections.deque"})):
            target.extend(items)

    def _fill_dict(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise pickle.UnpicklingError("odd number of keys and values")
        keys = items[::2]
        self._check_keys(keys)
        target = self.stack[-1]
        if self._may_fill(target, dict, like=DICT_LIKE):
            _put(target, items)

    def _check_keys(self, keys: list[Any]) -> None:
        if costs_much_to_hash(*keys):
            self.log.note("too complex", "a key", "too large to be a dictionary's or a set's key")

    def load_append(self) -> None:
        """``APPEND``."""
        item = self.stack.pop()
        self._fill_list([item])

    def load_appends(self) -> None:
        """``APPENDS``."""
        items = self.pop_mark()
        self._fill_list(items)

    def load_setitem(self) -> None:
        """``SETITEM``."""
        value, key = self.stack.pop(), self.stack.pop()
        self._fill_dict([key, value])

    def load_setitems(self) -> None:
        """``SETITEMS``."""
        items = self.pop_mark()
        self._fill_dict(items)

    def load_dict(self) -> None:
        """``DICT``."""
        items = self.pop_mark()
        self.append({})
        self._fill_dict(items)

    def load_additems(self) -> None:
        """``ADDITEMS``; what is in a set is not needed."""
        self._check_keys(self.pop_mark())
        self._may_fill(self.stack[-1], set, like=frozenset())

    def load_frozenset(self) -> None:
        """``FROZENSET``; what is in it is not needed."""
        self._check_keys(self.pop_mark())
        self.append(frozenset())

    def load_stop(self) -> None:
        """As the original, checking that no wrapper was left over."""
        if self._wrappers:
            self.log.note("array", WRAPPER, "used in another way than joblib does")
        super().load_stop()


def _is_refused(value: object) -> bool:
    """Whether a finding says already that this must not be loaded."""
    named = value.by if isinstance(value, Made) else value
    return isinstance(named, Named) and named.refused


def _name_of(value: object) -> str:
    named = value.by if isinstance(value, Made) else value
    return named.full if isinstance(named, Named) else type(value).__name__


def _put(target: dict[Any, Any], items: list[Any]) -> None:
    """Keep text keys only: others could be made to collide, and no rule looks at them."""
    for position in range(0, len(items), 2):
        key = items[position]
        target[key if type(key) is str else None] = items[position + 1]
