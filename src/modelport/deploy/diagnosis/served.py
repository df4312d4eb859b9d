"""What is served: the package's model under its name, or another one."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from modelport.core.package import Package
from modelport.deploy.diagnosis.base import Finding
from modelport.deploy.diagnosis.patient import Patient, is_ok, read_json
from modelport.deploy.verify.address import read_address
from modelport.deploy.verify.v2 import DATATYPES
from modelport.deploy.verify.web import shown


def diagnose_name(patient: Patient, package: Package) -> list[Finding]:
    """Find out whether the server has the package's model, and whether it is the same one."""
    name = _named(patient.url) or package.manifest.name
    answer = patient.get(f"/v2/models/{quote(name, safe='')}")
    if answer is None or not is_ok(patient.get("/v2")):
        answer = patient.get(f"/v1/models/{quote(name, safe='')}")
        if answer is None or not is_ok(patient.get("/v1/models")):
            return []
    if answer.status == 404:
        names = patient.names()
        told = f"; it has: {', '.join(names)}" if names else ""
        return [
            Finding(
                f"the server has no model {name}{told}",
                "it was started under another name (--name, --model_name; KServe calls the model "
                "as its InferenceService), or with another package",
                f"ask for {patient.base or ''}/v2/models/{names[0]}/infer"
                if len(names) == 1
                else "name the model in the address: …/v2/models/NAME/infer",
            )
        ]
    metadata = read_json(answer)
    return _diagnose_signature(metadata, package) if isinstance(metadata, dict) else []


def _diagnose_signature(metadata: dict[str, Any], package: Package) -> list[Finding]:
    found = []
    for side in ("inputs", "outputs"):
        told = metadata.get(side)
        if not isinstance(told, list):
            continue
        specs = getattr(package.manifest.signature, side)
        expected = {spec.name: DATATYPES[spec.dtype] for spec in specs}
        actual = {str(i.get("name")): i.get("datatype") for i in told if isinstance(i, dict)}
        if actual != expected:
            found.append(
                Finding(
                    f"the server's {side} are {_listed(actual)}, the package's {_listed(expected)}",
                    "another version of the model, or another model of this name, is served",
                    "compare 'modelport history NAME' with what was deployed",
                )
            )
    return found


def _listed(types: dict[str, Any]) -> str:
    return shown(", ".join(f"{name} {datatype}" for name, datatype in types.items()))


def _named(url: str) -> str:
    """The model that the URL names."""
    path = read_address(url).path
    for mark in ("/v2/models/", "/v1/models/"):
        if mark in path:
            return path.partition(mark)[2].partition("/")[0].partition(":")[0]
    return ""
