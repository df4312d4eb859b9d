"""Known failures, from one file: what a platform says, why, and what helps."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Final

from modelport.deploy.diagnosis.base import FAULT, NOTE, Finding

FILE: Final = "failures.toml"

#: Most characters of a message that are searched: a log's end.
_LONGEST: Final = 100_000


@dataclass(frozen=True)
class Failure:
    """One row of the file.

    Parameters
    ----------
    id : str
    says : str
        A regular expression that finds it in what a platform says.
    symptom, cause, remedy : str
    targets : tuple of str
        Where it happens; empty: everywhere.
    source : str
    """

    id: str
    says: str
    symptom: str
    cause: str
    remedy: str
    targets: tuple[str, ...] = ()
    source: str = ""

    def finding(self, weight: str = NOTE) -> Finding:
        """As a doctor says it."""
        return Finding(self.symptom, self.cause, self.remedy, weight, self.source)

    def explains(self, message: str) -> bool:
        """Whether `message` is this failure."""
        return re.search(self.says, message[-_LONGEST:], re.IGNORECASE) is not None


@cache
def read_failures() -> tuple[Failure, ...]:
    """All rows, in the file's order."""
    text = files("modelport.deploy.diagnosis").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(
        Failure(**{**row, "targets": tuple(row.get("targets", ()))})
        for row in tomllib.loads(text)["failure"]
    )


def failures_of(target: str, message: str = "") -> list[Failure]:
    """The failures that a target knows, its own before everybody's.

    Parameters
    ----------
    target : str
        Empty: of all.
    message : str
        Only those that it tells of; empty: all.
    """
    found = [f for f in read_failures() if not target or not f.targets or target in f.targets]
    found.sort(key=lambda failure: not failure.targets)
    return [failure for failure in found if not message or failure.explains(message)]


def explained(platform: str, said: str, symptom: str) -> Finding | None:
    """What a platform is known for, of what its endpoint said; None: nothing that it tells of.

    Parameters
    ----------
    platform : str
        A target; empty: none that is known, and nothing is explained.
    said : str
        The answer's status and text.
    symptom : str
        What the finding says is seen.
    """
    for failure in failures_of(platform, said) if platform else ():
        if failure.targets:
            return replace(failure.finding(FAULT), symptom=symptom)
    return None
