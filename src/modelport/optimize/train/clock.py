"""The time of trainings: of one, when to stop and how fast to learn; of several, who gets how much.

::

    now ─────────────── share of it ──────────────┬── left for other passes ──▶ deadline
     │ first training │ second │ … as long as there │
"""

from __future__ import annotations

import math
import time
from typing import Final

from modelport.core.errors import UnsupportedError

_WARM: Final = 0.05
_CHECKS: Final = 8
#: Steps after which it is known how long one takes.
TRIAL: Final = 4
#: Steps after which it is known whether the deadline comes before the last one.
_KNOWN: Final = 10
#: Seconds between two lines for people.
_TELL: Final = 4.0
#: Seconds of one training, however slow the machine; a tenth of the time where that is more.
LONGEST: Final = 150.0
_SHARE_OF_LONG: Final = 0.1
#: Of the time until the deadline, for the trainings of one pass.
_SHARE_OF_PASS: Final = 2 / 3
#: Seconds that are too few for any training.
_SHORTEST: Final = 5.0


class Allowance:
    """The time that a pass has for its trainings.

    Parameters
    ----------
    deadline : float
        In the time of `time.monotonic`.
    share : float
        Of the time until then that is used; the rest is for passes that come later.
    """

    def __init__(self, deadline: float, share: float = _SHARE_OF_PASS) -> None:
        now = time.monotonic()
        self._end = now + share * (deadline - now)
        left = self._end - now
        self._longest = LONGEST if math.isinf(left) else max(LONGEST, _SHARE_OF_LONG * left)

    def seconds(self, sharing: int = 1) -> float:
        """For the next training.

        Parameters
        ----------
        sharing : int
            Trainings that share what is left alike, the next one among them.

        Raises
        ------
        UnsupportedError
            When that is too little.
        """
        found = min(self._longest, (self._end - time.monotonic()) / sharing)
        if found < _SHORTEST:
            raise UnsupportedError(
                f"{max(found, 0.0):.0f} s are left for it, too little to train (--budget)"
            )
        return found


class Clock:
    """One training: when to stop, how fast to learn, when to look at the held rows.

    Parameters
    ----------
    steps : int
    deadline : float
        In the time of `time.monotonic`.
    """

    def __init__(self, steps: int, deadline: float) -> None:
        self.step = 0
        self._steps, self._start, self._deadline = steps, time.monotonic(), deadline
        self._told = self._start
        self._next_check = 1 / _CHECKS
        self._hurried = False

    def _progress(self) -> float:
        """The share that is done: of the steps, or of the time where that comes first."""
        share = self.step / self._steps
        passed = time.monotonic() - self._start
        room = self._deadline - self._start
        if self.step >= _KNOWN and self.each() * self._steps > room:
            self._hurried = True
        return max(share, passed / max(room, 1e-9)) if self._hurried else share

    def each(self) -> float:
        """Seconds per step so far."""
        return (time.monotonic() - self._start) / max(self.step, 1)

    def possible(self) -> float:
        """Steps that fit into the time."""
        return max(0.0, (self._deadline - self._start) / max(self.each(), 1e-9))

    def left(self) -> float:
        """Seconds until the last step."""
        now = time.monotonic()
        return max(0.0, min(self._deadline - now, (self._steps - self.step) * self.each()))

    def over(self) -> bool:
        """Whether all steps are done, or the time is up."""
        return self._progress() >= 1 or time.monotonic() >= self._deadline

    def rate(self) -> float:
        """The share of the highest learning rate."""
        rising = (self.step + 1) / max(_WARM * self._steps, 1)
        return min(rising, 0.5 * (1 + math.cos(math.pi * min(self._progress(), 1))))

    def tick(self) -> bool:
        """Count a step; whether the held rows have to be looked at."""
        self.step += 1
        if self._progress() < self._next_check:
            return False
        self._next_check = self._progress() + 1 / _CHECKS
        return True

    def tells(self, checked: bool) -> bool:
        """Whether people should hear of it: there is news, or some seconds have passed."""
        now = time.monotonic()
        if not checked and now - self._told < _TELL:
            return False
        self._told = now
        return True
