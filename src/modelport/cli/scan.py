"""Say what loading a model would run, without loading it.

The source is read instruction by instruction; nothing in it is imported, constructed, called or
extracted. A folder that is not itself a model is searched for models. Exit codes: 0 nothing was
found, 3 it is not safe to load, 2 it cannot be read.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from modelport import api
from modelport.cli.output import human_size, print_json, print_progress, print_table
from modelport.core.errors import InputError, UnsafeError
from modelport.scan.sweep import Verdict

EXAMPLES = """\
examples:
  modelport scan model.pt
  modelport scan downloads/ --json | jq '.models[] | select(.verdict == "unsafe")'
  modelport scan model.joblib --allow mycompany.features.Columns
"""
_MOST_GLOBALS = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("source", metavar="SOURCE", help="a model file or folder, or any folder")
    parser.add_argument(
        "--allow",
        metavar="NAMES",
        default="",
        help="these are no findings (package.module.Class, …); 'pack' takes the same names",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Scan, and print the findings."""
    verdicts = api.scan(options.source, allow=options.allow, progress=print_progress)
    if options.json:
        print_json({"models": [verdict.to_json() for verdict in verdicts]})
    elif len(verdicts) == 1 and verdicts[0].report is not None:
        _print_one(verdicts[0])
    else:
        _print_many(verdicts, options.source)
    worst = {verdict.verdict for verdict in verdicts}
    if "unsafe" in worst:
        return UnsafeError.exit_code
    return InputError.exit_code if "unreadable" in worst else 0


def _print_one(verdict: Verdict) -> None:
    inside = ", in ".join(reversed(verdict.formats))
    print(f"{verdict.path}: {inside}, {human_size(verdict.size)}")
    names = verdict.globals
    if names:
        print(f"it names {len(names)}:" if len(names) > 1 else "it names:")
    for name in names[:_MOST_GLOBALS]:
        print(f"  {name}")
    if len(names) > _MOST_GLOBALS:
        print(f"  and {len(names) - _MOST_GLOBALS} more (--json lists them)")
    for note in verdict.notes:
        print(note)
    print()
    if verdict.allowed:
        print(f"allowed: {', '.join(verdict.allowed)}")
    if not verdict.findings:
        safe = verdict.verdict == "safe"
        print("nothing else was found" if verdict.allowed else "nothing was found", end="")
        print(": it is safe to load" if safe else ", and it is damaged")
        return
    print_table(
        ["finding", "place", "reason"],
        [(finding.what, finding.where, finding.why) for finding in verdict.findings],
    )
    print("\nit is NOT safe to load")
    allowed = list(dict.fromkeys(f.what for f in verdict.findings if f.is_name))
    if len(allowed) == len(verdict.findings) and len(allowed) <= 3:
        print(f"if you know what that is: --allow {','.join(allowed)}")


def _print_many(verdicts: Sequence[Verdict], top: str) -> None:
    print_table(
        ["verdict", "format", "size", "model", "why"],
        [
            (
                v.verdict,
                "/".join(v.formats) or "-",
                human_size(v.size),
                os.path.relpath(v.path, top),
                _why(v),
            )
            for v in verdicts
        ],
    )
    count = {kind: sum(v.verdict == kind for v in verdicts) for kind in _KINDS}
    print(f"\n{len(verdicts)} models: " + ", ".join(f"{n} {kind}" for kind, n in count.items()))


_KINDS = ("safe", "unsafe", "unreadable")


def _why(verdict: Verdict) -> str:
    if verdict.error is not None:
        return verdict.error.message
    more = len(verdict.findings) - 1
    first = verdict.findings[0].describe() if verdict.findings else ""
    return f"{first} and {more} more" if more > 0 else first
