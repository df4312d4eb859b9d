"""Prove that an endpoint gives a package's answers.

The package's golden records are replayed through the endpoint's own protocol. Exit codes: 0 all
answers agree; 3 one differs; 1 nobody answers; 2 the endpoint refuses. An API key or token comes
from MODELPORT_API_KEY alone: other users of a machine see flags.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median
from typing import TYPE_CHECKING

from modelport.api.verify import verification_json, verify
from modelport.cli.output import Progress, print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options
from modelport.core.compare import OutputComparison
from modelport.core.errors import ParityError

if TYPE_CHECKING:
    from modelport.deploy.verify import Verification

EXAMPLES = """\
examples:
  modelport verify http://127.0.0.1:8080 ./churn
  modelport verify https://HOST/v1/models/churn:predict churn@champion
  modelport verify sagemaker://eu-west-1/churn churn@champion --json
  modelport verify https://ID.execute-api.eu-west-1.amazonaws.com/prod ./churn --protocol lambda
"""

_PROTOCOLS = (
    "auto, v2, tfserving, kserve-v1, sagemaker, vertex, azureml, mlflow, lambda, azure-functions, "
    "cloudrun"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_registry(parser)
    parser.add_argument("url", metavar="URL", help="of the server, or of the model's route")
    parser.add_argument("model", metavar="PACKAGE", help="a package or registered model")
    parser.add_argument(
        "--protocol", metavar="NAME", default="auto", help=f"one of {_PROTOCOLS} (default: auto)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Print what came of it; exit code 3 when an answer differs."""
    with Progress() as progress:
        found = verify(
            options.url,
            options.model,
            protocol=options.protocol,
            registry=registry_options(options),
            report=progress,
        )
    if options.json:
        print_json(verification_json(found))
    else:
        _print(found)
    return 0 if found.agrees else ParityError.exit_code


def _print(found: Verification) -> None:
    tolerance = f"{found.tolerance.relative:g} relative, {found.tolerance.absolute:g} absolute"
    print_table(
        ["OUTPUT", "RECORDS", "LARGEST DIFFERENCE", "TOLERANCE", "OUTSIDE", "FLIPS", "VERDICT"],
        [
            (
                c.name,
                found.records,
                c.problem or (f"{c.differing} differ" if c.exact else _error(c)),
                "exact" if c.exact else tolerance,
                f"{c.differing} of {c.elements}",
                c.differing if c.exact else c.argmax_flips,
                "same" if c.agrees else "DIFFERENT",
            )
            for c in found.comparisons
        ],
    )
    first, *_ = found.seconds
    print(f"\n{_verdict(found)}")
    print(
        f"{found.protocol} at {found.url}: {len(found.seconds)} requests; latency "
        f"{1000 * first:.1f} ms first, {1000 * median(found.seconds):.1f} ms median, "
        f"{1000 * max(found.seconds):.1f} ms largest"
    )
    if found.left_out:
        print(f"{found.left_out} records hold NaN or infinities, and this protocol carries none")
    for comparison in found.comparisons:
        if not comparison.agrees:
            print(f"different: {comparison.describe()}", file=sys.stderr)
    if found.differing_records:
        shown = ", ".join(map(str, found.differing_records))
        print(f"different records: {shown}", file=sys.stderr)


def _verdict(found: Verification) -> str:
    if found.agrees:
        return f"same: the answers to all {found.records} records are within the tolerance"
    if found.differing_records:
        wrong = len(found.differing_records)
        return f"DIFFERENT: the answers to {wrong} of {found.records} records are not the package's"
    return f"DIFFERENT: the answer to {found.records} records, asked together, is not the package's"


def _error(comparison: OutputComparison) -> str:
    return f"{comparison.max_absolute:.2g} absolute, {comparison.max_relative:.2g} relative"
