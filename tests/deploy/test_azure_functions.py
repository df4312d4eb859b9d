"""Azure Functions: plans, the template, and the published archive in azure-functions itself."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.errors import InputError, LimitError
from modelport.core.package import Package
from modelport.deploy import show, stage
from modelport.deploy.azure.archive import archive
from modelport.deploy.base import Plan
from modelport.deploy.limits import read_limits
from modelport.deploy.service import Footprint
from modelport.deploy.verify.base import EndpointModel
from modelport.deploy.verify.protocols import find_protocol
from tests.clients import run_client

from .checkov import assert_clean
from .golden_files import assert_golden

WHERE = (
    "subscription=00000000-0000-0000-0000-000000000001", "resource-group=models",
    "location=westeurope",
)  # fmt: skip
SUBNET = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net/providers/"
    "Microsoft.Network/virtualNetworks/v/subnets/functions"
)
SECRET = "https://keys.vault.azure.net/secrets/churn"
SKIPPED = {
    "CKV_AZURE_17", "CKV_AZURE_59", "CKV_AZURE_206", "CKV_AZURE_212", "CKV_AZURE_213",
    "CKV_AZURE_222", "CKV_AZURE_225",
}  # fmt: skip


def plan_of(package: Package, footprint: Footprint, *more: str) -> Plan:
    return stage.plan(package, "azure-functions", [*WHERE, *more], footprint=footprint)


def text_of(plan: Plan, path: str) -> str:
    return next(file.content for file in plan.files if file.path == path)


def resource(plan: Plan, kind: str) -> Any:
    template = json.loads(text_of(plan, "azuredeploy.json"))
    (found,) = [item for item in template["resources"] if item["type"] == kind]
    return found


def unpacked(plan: Plan, into: Path) -> Path:
    """What is published, as Azure unpacks it."""
    parameters = plan.calls[1].parameters
    data = archive(parameters["documents"], Path(parameters["package"]), parameters["model"])
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        file.extractall(into)
    return into


def test_the_plan_is_what_it_was(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint)
    assert_golden("azure-functions/plan.txt", show.to_text(plan), package)
    for path in ("function_app.py", "host.json", "azuredeploy.json"):
        assert_golden(f"azure-functions/{path}.txt", text_of(plan, path), package)


def test_the_plan_with_everything_set(package: Package, footprint: Footprint) -> None:
    plan = plan_of(
        package, footprint, "app=churn-eu", "python=3.12", "memory=4096", "max-instances=40",
        "always-ready=2", "concurrency=5", "timeout=100", "auth=anonymous",
        f"api-key-secret={SECRET}", f"subnet={SUBNET}",
    )  # fmt: skip
    assert_golden("azure-functions/everything.txt", show.to_text(plan), package)
    template = text_of(plan, "azuredeploy.json")
    assert_golden("azure-functions/everything.json", template, package)
    assert json.loads(text_of(plan, "host.json"))["functionTimeout"] == "00:01:40"
    assert 'auth_level="ANONYMOUS"' in text_of(plan, "function_app.py")


@pytest.mark.parametrize("level", ["function", "anonymous"])
def test_the_archive_answers_as_the_package_does(
    package: Package, footprint: Footprint, tmp_path: Path, level: str
) -> None:
    key = (f"api-key-secret={SECRET}",) if level == "anonymous" else ()
    site = unpacked(plan_of(package, footprint, f"auth={level}", *key), tmp_path / "site")
    golden = package.golden()
    assert golden is not None
    (site / "rows.json").write_text(json.dumps(golden.inputs["x"].tolist()))
    printed = run_client("functions_archive", site, "churn", level.upper())
    answer = json.loads(printed)
    assert (answer["ready"], answer["missing"]) == (200, 404)
    (output,) = golden.outputs.values()
    got = np.array(answer["predictions"], dtype=output.dtype).reshape(output.shape)
    assert np.array_equal(got, output)


def test_the_archive_is_the_same_each_time(
    package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    parameters = plan_of(package, footprint).calls[1].parameters
    first, second = (
        archive(parameters["documents"], Path(parameters["package"]), "churn") for _ in range(2)
    )
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as file:
        infos = file.infolist()
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


def test_the_requirements_are_locked_and_enough(
    package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    """pip itself holds the list to be complete: what is missing would be an error with hashes."""
    plan = plan_of(package, footprint)
    text = text_of(plan, "requirements.txt")
    names = re.findall(r"^([a-z][\w.-]*)==", text, re.MULTILINE)
    assert {"azure-functions", "numpy", "onnxruntime", "orjson"} <= set(names)
    assert not {"granian", "uvloop", "grpcio", "awslambdaric"} & set(names)
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block
    needed = requirements_of(names)
    assert needed <= set(names)


def requirements_of(names: list[str]) -> set[str]:
    """What the installed distributions of these names require, on Linux."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    needed = set()
    for name in names:
        try:
            wanted = requires(name) or []
        except PackageNotFoundError:  # azure-functions is only in the clients' environment
            continue
        for text in wanted:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed.add(str(canonicalize_name(requirement.name)))
    return needed


WORKER = """
import asyncio, enum, json, sys, types
for name in ("granian", "uvloop", "httptools", "grpc", "awslambdaric"):
    sys.modules[name] = None
azure, functions = types.ModuleType("azure"), types.ModuleType("azure.functions")
functions.AuthLevel = enum.Enum("AuthLevel", "ANONYMOUS FUNCTION ADMIN")
functions.AsgiFunctionApp = lambda app, http_auth_level: app
azure.functions = functions
sys.modules.update({"azure": azure, "azure.functions": functions})
sys.path.insert(0, SITE)
from function_app import app

async def ask(path, document):
    sent, body = [], json.dumps(document).encode()
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
             "query_string": b"", "headers": [(b"content-type", b"application/json")],
             "http_version": "1.1", "scheme": "https"}
    await app(scope, receive, send)
    return [sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]).decode()]

async def both():
    return [await ask(path, DOCUMENT) for path in PATHS]

print(json.dumps(asyncio.run(both())))
"""


def worker(site: Path, key: str = "", **values: Any) -> subprocess.CompletedProcess[str]:
    """What Azure's worker does with the unpacked archive, without its package."""
    given = {"SITE": str(site), "PATHS": [], "DOCUMENT": {}, **values}
    head = "".join(f"{name} = {value!r}\n" for name, value in given.items())
    return subprocess.run(
        [sys.executable, "-c", head + WORKER], capture_output=True, text=True, timeout=120,
        check=False, cwd=site.parent,
        env={**os.environ, **({"MODELPORT_API_KEY": key} if key else {})},
    )  # fmt: skip


def test_the_planned_endpoint_is_where_it_answers(
    package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    """As `verify` asks it, and from the root on; with none of what is left out of the lock."""
    plan = plan_of(package, footprint)
    site = unpacked(plan, tmp_path / "site")
    golden = package.golden()
    assert golden is not None
    model = EndpointModel(
        str(plan.endpoint), "", "", package.manifest.name, package.manifest.signature
    )
    ask = find_protocol(plan.protocol).encode(golden.inputs, model)
    paths = [ask.path, ask.path.removeprefix("/api")]
    assert len(set(paths)) == 2
    done = worker(site, PATHS=paths, DOCUMENT=json.loads(ask.body))
    assert done.returncode == 0, done.stderr
    (expected,) = golden.outputs.values()
    for status, body in json.loads(done.stdout):
        assert status == 200, body
        (output,) = json.loads(body)["outputs"]
        assert np.array_equal(np.array(output["data"], expected.dtype), expected.ravel())


def test_a_secret_that_cannot_be_read_is_not_the_key(
    package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    """Azure leaves the reference as it stands, and that is written in the template."""
    plan = plan_of(package, footprint, f"api-key-secret={SECRET}")
    site = resource(plan, "Microsoft.Web/sites")["properties"]["siteConfig"]["appSettings"]
    settings = {item["name"]: item["value"] for item in site}
    done = worker(unpacked(plan, tmp_path / "site"), key=settings["MODELPORT_API_KEY"])
    assert done.returncode != 0
    assert "cannot read the Key Vault secret" in done.stderr


def test_the_app_may_read_its_one_secret(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, f"api-key-secret={SECRET}")
    template = json.loads(text_of(plan, "azuredeploy.json"))["resources"]
    roles = [item for item in template if item["type"].endswith("/roleAssignments")]
    scopes = {item["scope"]: item["name"] for item in roles}
    assert len(scopes) == 2
    name = scopes["Microsoft.KeyVault/vaults/keys/secrets/churn"]
    undo = plan.calls[0].undo
    assert undo is not None
    first = undo.parameters["resources"][0]["id"]
    assert first.endswith(
        "/Microsoft.KeyVault/vaults/keys/secrets/churn"
        f"/providers/Microsoft.Authorization/roleAssignments/{name}"
    )
    assert "Microsoft.Authorization/roleAssignments/delete" in plan.rights


def test_hidden_files_and_folders_are_not_published(
    package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    folder = tmp_path / "package"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("token = x")
    (folder / "manifest.json").write_text("{}")
    with zipfile.ZipFile(io.BytesIO(archive({}, folder, "m"))) as file:
        inside = [name for name in file.namelist() if name.startswith("models/")]
    assert inside == ["models/m/manifest.json"]


def test_the_lock_has_what_the_worker_s_package_requires() -> None:
    """azure-functions 1.26 requires Werkzeug 3.1, and that MarkupSafe, which is compiled."""
    from modelport.deploy.images.wheels import read_lock

    path = Path(archive.__code__.co_filename).with_name("functions.lock")
    pins = {pin.name: pin for pin in read_lock(str(path))}
    assert set(pins) == {"azure-functions", "werkzeug", "markupsafe"}
    assert "werkzeug==3.1." in pins["werkzeug"].text
    assert pins["markupsafe"].text.count("--hash=") == 2, "one wheel for each version of Python"


@pytest.mark.parametrize(
    ("more", "skipped"),
    [((), SKIPPED | {"CKV_AZURE_35"}), ((f"subnet={SUBNET}",), SKIPPED)],
)
def test_the_template_is_clean(
    package: Package, footprint: Footprint, tmp_path: Path, more: Any, skipped: set[str]
) -> None:
    path = tmp_path / "azuredeploy.json"
    path.write_text(text_of(plan_of(package, footprint, *more), "azuredeploy.json"))
    assert_clean(path, skipped=skipped)


def test_checkov_would_say_so(package: Package, footprint: Footprint, tmp_path: Path) -> None:
    path = tmp_path / "azuredeploy.json"
    text = text_of(plan_of(package, footprint), "azuredeploy.json")
    path.write_text(text.replace('"httpsOnly": true', '"httpsOnly": false'))
    with pytest.raises(AssertionError, match="CKV_AZURE_14"):
        assert_clean(path, skipped=SKIPPED | {"CKV_AZURE_35"})


def test_the_template_holds_together(package: Package, footprint: Footprint) -> None:
    """Every dependency is a resource of the template, with as many names as its type has parts."""
    template = json.loads(text_of(plan_of(package, footprint), "azuredeploy.json"))
    assert template["$schema"].endswith("deploymentTemplate.json#")
    ids = set()
    for item in template["resources"]:
        assert {"type", "apiVersion", "name"} <= item.keys()
        names = item["name"].split("/") if not item["name"].startswith("[") else [item["name"]]
        assert len(names) == item["type"].count("/"), item["type"]
        ids.add((item["type"], *names))
    for item in template["resources"]:
        for needed in item.get("dependsOn", []):
            inner = re.fullmatch(r"\[resourceId\((.*)\)\]", needed)
            assert inner, needed
            assert tuple(re.findall(r"'([^']*)'", inner[1])) in ids, needed


def test_the_security_of_the_app(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint)
    site, account = (
        resource(plan, kind)["properties"]
        for kind in ("Microsoft.Web/sites", "Microsoft.Storage/storageAccounts")
    )
    assert site["httpsOnly"] is True
    assert site["siteConfig"]["minTlsVersion"] == "1.2"
    assert site["siteConfig"]["ftpsState"] == "Disabled"
    assert account["allowSharedKeyAccess"] is False
    assert account["allowBlobPublicAccess"] is False
    settings = {item["name"]: item["value"] for item in site["siteConfig"]["appSettings"]}
    assert settings["AzureWebJobsStorage__credential"] == "managedidentity"
    # With these there would be a key, or Flex Consumption would refuse the app.
    assert not {"AzureWebJobsStorage", "FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_EXTENSION_VERSION",
                "WEBSITE_RUN_FROM_PACKAGE"} & settings.keys()  # fmt: skip
    assert len(resource(plan, "Microsoft.Authorization/roleAssignments")) > 0
    whole = "".join(file.content for file in plan.files)
    assert not re.search(r"AccountKey=|SharedAccessSignature|listKeys\(|password", whole)


def test_a_key_is_only_ever_referred_to(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, f"api-key-secret={SECRET}")
    site = resource(plan, "Microsoft.Web/sites")["properties"]
    settings = {item["name"]: item["value"] for item in site["siteConfig"]["appSettings"]}
    assert settings["MODELPORT_API_KEY"] == f"@Microsoft.KeyVault(SecretUri={SECRET})"
    with pytest.raises(InputError, match="Key Vault") as caught:
        plan_of(package, footprint, "api-key-secret=hunter2-hunter2-hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("memory", "processor", "size", "concurrency"),
    [
        (90 << 20, 0.0001, 512, 64),
        (90 << 20, 0.01, 512, 2),
        (300 << 20, 0.01, 2048, 10),
        (1600 << 20, 0.5, 4096, 1),
    ],
)
def test_instances_are_sized_from_the_measurement(
    package: Package, footprint: Footprint, memory: int, processor: float, size: int,
    concurrency: int,
) -> None:  # fmt: skip
    measured = replace(footprint, memory=memory, processor=processor)
    site = resource(plan_of(package, measured), "Microsoft.Web/sites")
    scale = site["properties"]["functionAppConfig"]["scaleAndConcurrency"]
    assert scale["instanceMemoryMB"] == size
    assert scale["triggers"]["http"]["perInstanceConcurrency"] == concurrency


def test_names_are_the_same_each_time_and_unique(package: Package, footprint: Footprint) -> None:
    names = {
        plan_of(package, footprint, *more).connection["app"]
        for more in ((), (), ("resource-group=others",), ("name=other",))
    }
    assert len(names) == 3
    account = resource(plan_of(package, footprint), "Microsoft.Storage/storageAccounts")["name"]
    assert re.fullmatch(r"[a-z0-9]{3,24}", account)


@pytest.mark.parametrize("missing", range(len(WHERE)))
def test_what_is_missing_is_named(package: Package, footprint: Footprint, missing: int) -> None:
    settings = [pair for index, pair in enumerate(WHERE) if index != missing]
    name = WHERE[missing].partition("=")[0]
    with pytest.raises(InputError, match=f"needs the setting {name}"):
        stage.plan(package, "azure-functions", settings, footprint=footprint)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("timeout=231",), "time-out"),
        (("max-instances=1001",), "instances"),
        (("concurrency=1001",), "concurrent"),
        (("app=" + "a" * 61,), "name"),
        (("memory=512",), "512 MB"),
    ],
)
def test_beyond_a_limit_it_is_refused(
    package: Package, footprint: Footprint, more: Any, what: str
) -> None:
    large = replace(footprint, memory=400 << 20)
    with pytest.raises(LimitError, match=what) as caught:
        plan_of(package, large, *more)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("auth=anonymous",), "needs a key"),
        (("resource-group=a b",), "not a resource-group"),
        (("location=West Europe",), "not a location"),
        (("app=x'); drop",), "not a app"),
        (("subnet=default",), "not a subnet"),
        (("timeout=0",), "not a time-out"),
        (("always-ready=5", "max-instances=4"), "always-ready is 5"),
        ((f"api-key-secret={SECRET}/)",), "no URI"),
        (("api-key-secret=https://evil.example/secrets/x",), "no URI"),
    ],
)
def test_settings_that_cannot_be(
    package: Package, footprint: Footprint, more: Any, words: str
) -> None:
    settings = {pair.partition("=")[0]: pair for pair in (*WHERE, *more)}
    with pytest.raises(InputError, match=words):
        stage.plan(package, "azure-functions", list(settings.values()), footprint=footprint)


def test_groups_are_quoted_in_commands(package: Package, footprint: Footprint) -> None:
    """Azure allows parentheses in their names."""
    settings = [*(p for p in WHERE if "group" not in p), "resource-group=models(eu)"]
    plan = stage.plan(package, "azure-functions", settings, footprint=footprint)
    assert any("--resource-group 'models(eu)'" in command for command in plan.commands)


def test_every_limit_of_the_file_is_checked(package: Package, footprint: Footprint) -> None:
    plans = [plan_of(package, footprint, f"memory={size}") for size in (512, 2048, 4096)]
    checked = {check.limit.id for plan in plans for check in plan.checks}
    known = {limit.id for limit in read_limits()[1] if limit.target == "azure-functions"}
    assert known == checked
