"""Train a real model, pack it, register it, serve it, compare every answer, roll back.

Takes a few seconds, needs modelport[sklearn], and leaves nothing behind.
"""

from __future__ import annotations

import argparse

from modelport.demo.story import tell

EXAMPLES = """\
examples:
  modelport demo
  modelport demo --keep
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the server running and print curl commands for it",
    )


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    tell(keep=options.keep)
    return 0
