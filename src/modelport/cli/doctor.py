"""Show what can run here and what is missing; or what is wrong with an endpoint or deployment.

With a URL: why nobody answers there, or otherwise than the package would. With --target: what
stands in the way of a deployment, and the failures that the platform is known for; --message has
what the platform said.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from modelport import api
from modelport.api.diagnose import doctor_target, doctor_url
from modelport.cli.output import Progress, print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options
from modelport.core.errors import InputError

if TYPE_CHECKING:
    from modelport.deploy.diagnosis import Finding

EXAMPLES = """\
examples:
  modelport doctor
  modelport doctor --json
  modelport doctor http://127.0.0.1:8080 ./churn
  modelport doctor --target sagemaker churn@champion --set role=ROLE_ARN
  modelport doctor --target sagemaker --message "did not pass the ping health check"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_registry(parser)
    parser.add_argument(
        "words", nargs="*", metavar="[URL] [MODEL]", help="an endpoint, and what it should serve"
    )
    parser.add_argument("--target", metavar="TARGET", help="a platform, as of deploy --to")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the target"
    )
    parser.add_argument("--image", metavar="FOLDER", default="", help="an OCI layout to look at")
    parser.add_argument(
        "--message", metavar="TEXT", default="", help="what the platform said, or its log's end"
    )
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")


def run(options: argparse.Namespace) -> int:
    """Print the diagnosis; exit code 1 when something does not work."""
    url, model = _words(options)
    registry = registry_options(options)
    if not (url or options.target):
        return _here(options)
    if url:
        with Progress() as progress:
            found = doctor_url(url, model, registry=registry, report=progress)
    else:
        found = doctor_target(
            options.target, model, options.set,
            image=options.image, message=options.message, registry=registry,
        )  # fmt: skip
    if options.json:
        print_json([finding.to_json() for finding in found])
    else:
        _print(found)
    return 1 if any(finding.weight == "fault" for finding in found) else 0


def _words(options: argparse.Namespace) -> tuple[str, str]:
    """The URL and the model; each may be missing."""
    words = list(options.words)
    url = words.pop(0) if words and "://" in words[0] else ""
    if url and options.target:
        raise InputError("either a URL or --target", where="modelport doctor")
    for flag in ("set", "image", "message"):
        if getattr(options, flag) and not options.target:
            raise InputError(f"--{flag} needs --target", where="modelport doctor")
    if len(words) > 1 or (words and not (url or options.target)):
        raise InputError(
            f"not an address: {words[0]!r}", hint="modelport doctor http://host:port/… [MODEL]"
        )
    return url, words[0] if words else ""


def _here(options: argparse.Namespace) -> int:
    diagnosis = api.doctor(registry=registry_options(options))
    if options.json:
        print_json(diagnosis)
    else:
        for key, value in diagnosis["system"].items():
            print(f"{key}: {value}")
        print()
        print_table(
            ["KIND", "ADAPTER", "STATUS", "HANDLES"],
            [(a["kind"], a["name"], _status(a), a["summary"]) for a in diagnosis["adapters"]],
        )
    return 0 if diagnosis["healthy"] else 1


def _print(found: list[Finding]) -> None:
    if not found:
        print("nothing wrong was found")
    for finding in found:
        print(f"{finding.weight}: {finding.symptom}")
        print(f"  cause:  {finding.cause}")
        print(f"  remedy: {finding.remedy}")
        if finding.source:
            print(f"  source: {finding.source}")


def _status(adapter: dict[str, str]) -> str:
    return "ok" if not adapter["install"] else f"missing: {adapter['install']}"
