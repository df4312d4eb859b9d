"""What ``modelport optimize`` reaches: ``python benchmarks/optimization.py``.

Every case of ``optimization_quantized.py``, ``optimization_distilled.py`` and
``optimization_classic.py``, each in a process of its own, so that the memory is that of one model.
Times are only worth something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
#: In the order of the table.
CASES: Final = {
    "efficientnet": "optimization_quantized",
    "minilm": "optimization_quantized",
    "digits": "optimization_quantized",
    "digits-distilled": "optimization_distilled",
    "xgboost": "optimization_classic",
    "lightgbm": "optimization_classic",
    "spam": "optimization_classic",
    "spam-unlabelled": "optimization_classic",
}


def run(case: str, more: Sequence[str] = ()) -> dict[str, Any]:
    """One case in a process of its own.

    Parameters
    ----------
    case : str
        One of `CASES`.
    more : sequence of str
        Flags for its program.

    Raises
    ------
    subprocess.CalledProcessError
        When it fails; what it said is on stderr already.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        program = _HERE / f"{CASES[case]}.py"
        subprocess.run(
            [sys.executable, str(program), "--only", case, "--json", str(path), *more],
            check=True,
            stdout=sys.stderr,
        )
        (record,) = json.loads(path.read_text(encoding="utf-8"))
    line: dict[str, Any] = record["summary"]
    return line


def main() -> int:
    """Run the cases, print their lines, and write them down when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="lines of other cases stay in it")
    parser.add_argument("--only", metavar="NAMES", default=",".join(CASES))
    parser.add_argument("--photographs", metavar="DIR", help="of your own, as JPEG files")
    options = parser.parse_args()
    photographs = ["--photographs", options.photographs] if options.photographs else []
    lines: dict[str, Any] = {}
    if options.json and options.json.is_file():
        lines = json.loads(options.json.read_text(encoding="utf-8"))
    for case in options.only.split(","):
        lines[case] = run(case, photographs if case == "efficientnet" else ())
        print(json.dumps(lines[case], indent=1), flush=True)
        if options.json:
            ordered = {name: lines[name] for name in CASES if name in lines}
            options.json.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
