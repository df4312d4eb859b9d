"""Run a model on a platform: planned, applied, verified; or only planned.

Without --yes the plan is shown first, and you are asked. --plan needs neither network nor
credentials. After the platform's server has answered the package's golden records, it gets the
traffic; whatever fails is taken back.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from modelport import api
from modelport.cli.comparison import print_comparison
from modelport.cli.output import Progress, print_json, print_table
from modelport.cli.registry_flags import add_registry, registry_options
from modelport.core.errors import InputError

EXAMPLES = """\
examples:
  modelport deploy churn --to docker --yes
  modelport deploy churn@champion --to kubernetes --set key-secret=churn-keys/key --plan
  modelport deploy churn@champion --to lambda --set region=eu-west-1 --out deployment
  modelport deploy churn --to sagemaker --set mode=serverless --set region=eu-west-1 --plan
  modelport deploy status churn --to docker
  modelport deploy destroy churn --to docker --yes
  modelport deploy --compare churn --load "50 rps, 8h/day"
  modelport deploy --settings kserve
"""

_ACTIONS = ("status", "destroy")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add_registry(parser)
    parser.add_argument(
        "words", nargs="*", metavar="[status|destroy] MODEL", help="a package or registered model"
    )
    parser.add_argument("--to", metavar="TARGET", help="the platform; see --settings")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the target"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan and end")
    parser.add_argument("--out", metavar="DIR", help="write the plan's files to DIR")
    parser.add_argument("--measure", action="store_true", help="measure memory and time first")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--compare", action="store_true", help="compare all targets")
    parser.add_argument(
        "--load", metavar="TEXT", default="", help="for --compare: '50 rps, 8h/day'"
    )
    parser.add_argument(
        "--settings", metavar="TARGET", help="list a target's settings and end ('all': of all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Plan, ask, apply; or what else was asked for."""
    if options.settings:
        return _settings(options)
    words = list(options.words)
    action = words.pop(0) if words and words[0] in _ACTIONS else ""
    if len(words) != 1:
        raise InputError(f"expected one MODEL, got {len(words)}", hint="modelport deploy --help")
    model = words[0]
    if options.compare:
        return _compare(options, model)
    if not options.to:
        names = ", ".join(api.targets())
        raise InputError("no target was chosen", hint=f"--to TARGET, of: {names}")
    if action == "status":
        print_json(
            api.deployment_status(
                model, options.to, options.set, registry=registry_options(options)
            )
        )
        return 0
    return _destroy(options, model) if action else _deploy(options, model)


def _deploy(options: argparse.Namespace, model: str) -> int:
    registry = registry_options(options)
    only_plan = options.plan or (options.out and not options.yes)
    with Progress() as progress:
        # What is asked about is what will be done: so everything is measured that can be.
        plan = api.plan_deployment(
            model, options.to, options.set, registry=registry,
            measure=options.measure or not only_plan, report=progress,
        )  # fmt: skip
    if only_plan:
        _show(plan, as_json=options.json)
        for path in api.write_plan(plan, options.out) if options.out else ():
            print(f"wrote {path}", file=sys.stderr)
        return 0
    if not options.json:
        _show(plan, as_json=False)
    if not options.yes:
        _ask("make these calls")
    with Progress() as progress:
        made = api.deploy(
            model, options.to, options.set, registry=registry, out=options.out or "",
            report=progress,
        )  # fmt: skip
    if options.json:
        print_json({"url": made.url, "verified": made.verified, "plan": api.plan_json(made.plan)})
    verified = "deployed and verified" if made.verified else "deployed; nothing to verify there"
    print(f"{verified}{f': {made.url}' if made.url else ''}", file=sys.stderr)
    return 0


def _destroy(options: argparse.Namespace, model: str) -> int:
    registry = registry_options(options)
    plan = api.plan_deployment(model, options.to, options.set, registry=registry)
    steps = api.removal(plan)
    if options.json:
        print_json({"target": plan.target, "name": plan.service.name, "steps": steps})
    else:
        print(
            "\n".join(
                [f"destroy {plan.service.name} on {plan.target}:", *map("  {}".format, steps)]
            )
        )
    if options.plan:
        return 0
    if not options.yes:
        _ask("take this away")
    with Progress() as progress:
        api.destroy(model, options.to, options.set, registry=registry, report=progress)
    return 0


def _show(plan: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(api.plan_json(plan))
    else:
        print(api.plan_text(plan), end="")


def _ask(what: str) -> None:
    if not sys.stdin.isatty():
        raise InputError("nobody is there to be asked", hint="--yes does it, --plan only plans")
    print(f"{what}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("nothing was done")


def _settings(options: argparse.Namespace) -> int:
    every = api.targets()
    if options.settings != "all" and options.settings not in every:
        raise InputError(
            f"no target {options.settings!r}", where="--settings", hint=f"of: {', '.join(every)}"
        )
    chosen = {n: s for n, s in every.items() if options.settings in (n, "all")}
    if options.json:
        print_json(
            {
                name: [{"key": k, "default": d, "help": h} for k, d, h in settings]
                for name, settings in chosen.items()
            }
        )
        return 0
    print_table(
        ["TARGET", "KEY", "DEFAULT", "WHAT"],
        [(name, *row) for name, settings in chosen.items() for row in settings],
    )
    return 0


def _compare(options: argparse.Namespace, model: str) -> int:
    rows = api.compare_targets(
        model, options.set, load=options.load, registry=registry_options(options)
    )
    if options.json:
        print_json(rows)
        return 0
    print_comparison(rows)
    return 0
