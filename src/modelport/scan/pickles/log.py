"""What a scan has seen so far, and how much more it may look at."""

from __future__ import annotations

from modelport.scan.base import Finding

#: A vocabulary of a million words takes about five million instructions.
MOST_STEPS = 50_000_000
_MOST_FINDINGS = 100


class Abandoned(Exception):  # noqa: N818
    """The scan cannot follow the file further; a finding says why."""


class Log:
    """Names, findings and the step count of one file, shared by all pickles in it.

    Attributes
    ----------
    names : dict of str to None
        Every name, in order of first appearance.
    findings : list of Finding
        Each kind and name once, where it was first seen.
    steps, most_steps : int
        Instructions read, and how many may be.
    position : int
        Where the latest instruction stands, in bytes from the start of the uncompressed file.
    """

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.findings: list[Finding] = []
        self.steps = 0
        self.position = 0
        self.most_steps = MOST_STEPS
        self._seen: set[tuple[str, str]] = set()

    def name(self, full: str) -> None:
        """Take note of a class or function."""
        self.names[full] = None

    def note(self, kind: str, what: str, why: str) -> None:
        """Take note of a finding at the current position."""
        if (kind, what) not in self._seen and len(self.findings) < _MOST_FINDINGS:
            self._seen.add((kind, what))
            self.findings.append(Finding(kind, what, f"byte {self.position}", why))

    def too_complex(self, why: str) -> None:
        """Note that the file is made to exhaust its reader, and stop.

        Raises
        ------
        Abandoned
            Always.
        """
        self.note("too complex", "the file", why)
        raise Abandoned
