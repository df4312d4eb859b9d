"""Python's own unpickler, bounded and strict: the half that is about reading.

It reads every instruction as the original does, except where the C and the Python unpickler, or
the scan and the loader, could come to read the same bytes differently. What an instruction means
is `DryUnpickler`'s half.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from modelport.core.allowed_globals import ARRAY_WRAPPER
from modelport.scan.pickles.log import Log
from modelport.scan.pickles.reader import Reader
from modelport.scan.pickles.standins import Made, Named

#: Honest files stay below 1000: Python's pickler recurses.
MOST_MARKS: Final = 10_000
WRAPPER: Final = ".".join(ARRAY_WRAPPER)
# A stream may hold many pickles, and each takes an unpickler.
_PICKLE_COST: Final = 20

Handler = Callable[[Any], None]
_MEMOIZING: Final = frozenset(
    code[0]
    for code in (pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.FRAME)
)


class _Metered(dict[int, Handler]):
    """The table of instructions, counting each one that is looked up, and noting where it is."""

    def __init__(self, table: dict[int, Handler], owner: MeteredUnpickler) -> None:
        super().__init__(table)
        self._owner = owner
        self._log = owner.log

    def __getitem__(self, code: int) -> Handler:
        # In one piece, because it runs for each of millions of instructions.
        owner, log = self._owner, self._log
        frame = owner._unframer.current_frame
        log.position = (
            owner.reader.position if frame is None else owner.frame_start + frame.tell()
        ) - 1
        log.steps += 1
        if log.steps > log.most_steps:
            log.too_complex(f"more than {log.most_steps} instructions")
        if owner.awaited is not None:
            owner.check_awaited(code)
        return super().__getitem__(code)


@cache
def _handlers(cls: Any) -> dict[int, Handler]:
    """The original's table, with the methods that `cls` overrides."""
    original: dict[int, Any] = pickle._Unpickler.dispatch
    return {code: getattr(cls, handler.__name__) for code, handler in original.items()}


class MeteredUnpickler(pickle._Unpickler):
    """Read one pickle from `reader`, counting and bounding.

    An object whose meaning decides how many bytes are read, or how they are understood (an array
    wrapper, an element type not yet complete), may not be reached twice, so that it cannot be
    changed after it was checked. joblib's wrapper class may only be followed by the instructions
    that joblib writes after it, so that no wrapper is made unseen.

    Parameters
    ----------
    reader : Reader
        Stands at the pickle's first byte, and behind its last one afterwards.
    log : Log
        Takes the findings.

    Attributes
    ----------
    frame_start : int
        Where the current frame begins.
    awaited : int or None
        The instruction that must come next, after joblib's wrapper class.
    """

    # Attributes of the standard library's class that its stubs do not declare.
    stack: list[Any]
    metastack: list[list[Any]]
    memo: dict[int, Any]
    proto: int
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]
    _unframer: Any

    def __init__(self, reader: Reader, log: Log) -> None:
        super().__init__(reader)
        self.reader = reader
        self.log = log
        self.frame_start = 0
        self.awaited: int | None = None
        log.steps += _PICKLE_COST
        cls: Any = type(self)
        self.dispatch = _Metered(_handlers(cls), self)  # type: ignore[misc]

    def check_awaited(self, code: int) -> None:
        """Hold the instructions after joblib's wrapper class to the ones that joblib writes."""
        if code == self.awaited:
            self.awaited = pickle.NEWOBJ[0] if code == pickle.EMPTY_TUPLE[0] else None
        elif code not in _MEMOIZING:
            self.log.note("array", WRAPPER, "used in another way than joblib does")
            self.awaited = None

    def frame_has_more(self) -> bool:
        """Whether the current frame has bytes that were not read yet."""
        frame = self._unframer.current_frame
        return frame is not None and frame.tell() < len(frame.getbuffer())

    def on_wrapper(self) -> None:
        """Take note that joblib's wrapper class is on the stack."""
        self.awaited = pickle.EMPTY_TUPLE[0]

    def load_frame(self) -> None:
        """As the original, noting where the frame begins."""
        super().load_frame()  # type: ignore[misc]
        self.frame_start = self.reader.position - len(self._unframer.current_frame.getbuffer())

    def load_mark(self) -> None:
        """As the original, with a bound."""
        super().load_mark()  # type: ignore[misc]
        if len(self.metastack) > MOST_MARKS:
            self.log.too_complex(f"nested more than {MOST_MARKS} levels deep")

    def load_bytearray8(self) -> None:
        """As the original, which however reserves the declared size before it reads."""
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    def load_string(self) -> None:
        """As the original, which however warns of escapes that it does not know."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().load_string()  # type: ignore[misc]

    def _check_put(self) -> None:
        # The C unpickler makes its memo as long as the largest index.
        if next(reversed(self.memo)) > self.log.steps:
            self.log.too_complex("a memo index that is larger than the file's instructions")

    def load_put(self) -> None:
        """``PUT``."""
        super().load_put()  # type: ignore[misc]
        self._check_put()

    def load_long_binput(self) -> None:
        """``LONG_BINPUT``."""
        super().load_long_binput()  # type: ignore[misc]
        self._check_put()

    def _check_copy(self) -> None:
        value = self.stack[-1]
        if isinstance(value, Made) and value.single:
            self.log.note("array", value.by.full, "used before it is complete, or twice")
        elif isinstance(value, Named) and value.full == WRAPPER:
            self.on_wrapper()

    def load_get(self) -> None:
        """``GET``."""
        super().load_get()  # type: ignore[misc]
        self._check_copy()

    def load_binget(self) -> None:
        """``BINGET``."""
        super().load_binget()  # type: ignore[misc]
        self._check_copy()

    def load_long_binget(self) -> None:
        """``LONG_BINGET``."""
        super().load_long_binget()  # type: ignore[misc]
        self._check_copy()

    def load_dup(self) -> None:
        """``DUP``."""
        super().load_dup()  # type: ignore[misc]
        self._check_copy()

    def load_stop(self) -> None:
        """As the original, but a frame must end here.

        After it the C unpickler goes on behind ``STOP``, and the Python one behind the frame.
        """
        if self.frame_has_more():
            self.log.note("stream", "bytes after the end", "the last frame goes on after STOP")
        super().load_stop()  # type: ignore[misc]
