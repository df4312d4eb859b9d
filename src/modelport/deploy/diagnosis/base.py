"""What a doctor says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

#: How bad it is: it does not work; it may not work; good to know.
FAULT: Final = "fault"
WARNING: Final = "warning"
NOTE: Final = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or could be.

    Parameters
    ----------
    symptom : str
        What is seen.
    cause : str
    remedy : str
        What to do about it.
    weight : str
        ``fault``, ``warning`` or ``note``.
    source : str
        A URL, where a platform's rule is the cause.
    """

    symptom: str
    cause: str
    remedy: str
    weight: str = FAULT
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
