"""``modelport``: find the verb, run it, turn errors into messages and exit codes.

Exit codes: 0 done; 1 our failure; 2 the user's input; 3 parity or integrity refused.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

from modelport import __version__
from modelport.core.errors import ModelportError

#: Verb → what it does, in the order of the pipeline. Each is a module of this package.
VERBS: Final = {
    "scan": "say what loading a model would run, without loading it",
    "convert": "turn a trained model into one verified ONNX file",
    "pack": "turn a trained model into a verified package",
    "inspect": "show a package and verify every byte of it",
    "push": "register a package as the next version of its model",
    "pull": "write a registered package to a folder",
    "list": "list registered models, versions and aliases",
    "promote": "point an alias at a version",
    "rollback": "point an alias back at what it pointed at before",
    "history": "show who changed what and when",
    "serve": "serve models over HTTP",
    "image": "write a container image of a package, without Docker",
    "optimize": "make a package smaller and faster, never worse",
    "compare": "two models side by side on the same rows",
    "deploy": "run a model on a platform: planned, applied, verified",
    "verify": "prove that an endpoint gives a package's answers",
    "predict": "predict with a package, a registered model or a server",
    "doctor": "show what can run here and what is missing",
    "demo": "train, pack, register, serve and roll back a real model",
}

_EPILOG: Final = """\
examples:
  modelport pack model.joblib --name churn --sample rows.csv
  modelport push churn && modelport promote churn@1 champion
  modelport serve churn@champion --port 8080
  modelport predict http://127.0.0.1:8080/churn --input rows.csv

'modelport VERB --help' has more. Settings: flags, then MODELPORT_… variables, then
modelport.toml. Exit codes: 0 done, 1 our failure, 2 your input, 3 parity or integrity refused.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = _with_values(sys.argv[1:] if arguments is None else arguments)
    as_json = False
    try:
        options = _parser(words).parse_args(words)
        as_json = getattr(options, "json", False)
        code: int = options.run(options)
        sys.stdout.flush()
    except ModelportError as error:
        # Not above: what takes long to import is imported where Ctrl-C ends it without a traceback.
        from modelport.cli.output import print_error

        print_error(error, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough; nothing may be written to it when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("MODELPORT_DEBUG"):
            raise
        print(
            f"error: a defect in modelport: {type(error).__name__}: {error}\n"
            "hint: MODELPORT_DEBUG=1 shows where; please report it",
            file=sys.stderr,
        )
        return 1
    return code


def _with_values(words: Sequence[str]) -> list[str]:
    """The words, with ``--passes -prune`` as ``--passes=-prune``.

    Argparse takes any word that begins with a dash for a flag; those of one dash have one letter.
    """
    joined: list[str] = []
    for word in words:
        flag = bool(joined) and joined[-1].startswith("--") and "=" not in joined[-1]
        if flag and re.fullmatch(r"-[a-z][a-z0-9].*", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelport",
        description="From a trained model to a fast, small, verified service on any cloud.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"modelport {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    asked = next((word for word in words if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        # Only the verb that is asked for is imported: starting a server must not wait for
        # the flags of the others.
        if verb == asked or asked not in VERBS:
            module = importlib.import_module(f"modelport.cli.{verb}")
            child = verbs.add_parser(
                verb,
                help=summary,
                description=module.__doc__,
                epilog=module.EXAMPLES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.configure(child)
            child.set_defaults(run=module.run)
    return parser
