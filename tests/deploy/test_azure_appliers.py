"""The Azure appliers: the real SDKs against a small Resource Manager on loopback.

It answers in Azure's shapes and knows none of Azure's rules: what is proven is what is sent, in
which order, what becomes of refusals, and that failures are taken back.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelport.core.errors import InputError, NotFoundError, ParityError, PlatformError
from modelport.core.package import Package
from modelport.deploy import stage
from modelport.deploy.appliers import azure as resource_manager
from modelport.deploy.appliers import azureml
from modelport.deploy.azure.traffic import shift
from modelport.deploy.base import Plan
from modelport.deploy.service import Footprint
from tests.serve.certificates import Certificates

from .azure_fake import Fake, Token, azure

GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/models"
SHOP = f"{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/shop"
ENDPOINT = f"{SHOP}/onlineEndpoints/churn"
ML = (
    "subscription=00000000-0000-0000-0000-000000000001", "resource-group=models",
    "workspace=shop", "location=westeurope",
    "image=shop.azurecr.io/churn@sha256:" + "ab" * 32,
)  # fmt: skip
FUNCTIONS = (*ML[:2], "location=westeurope", "app=churn-app")
SITE = f"{GROUP}/providers/Microsoft.Web/sites/churn-app"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("azure"))


@pytest.fixture
def fake(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with azure(certificates) as fake:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["ca"]))
        monkeypatch.setenv("AZUREML_DEV_URL_MFE", fake.url)
        monkeypatch.setattr(azureml, "DefaultAzureCredential", Token)
        monkeypatch.setattr(azureml, "_POLL", 0.01)
        monkeypatch.setattr(resource_manager, "DefaultAzureCredential", Token)
        monkeypatch.setattr(resource_manager, "ARM", fake.url)
        monkeypatch.setattr(resource_manager, "_POLL", 0.01)
        fake.answers |= {
            "/host/default/listkeys": {"functionKeys": {"default": "k"}, "masterKey": "m"},
            "/listKeys": {"primaryKey": "the-key", "secondaryKey": "other"},
            "/token": {"accessToken": "the-token", "tokenType": "Bearer"},
        }
        fake.things[SHOP] = {"id": SHOP, "name": "shop", "location": "westeurope",
                             "properties": {}}  # fmt: skip
        yield fake


def ml_plan(package: Package, footprint: Footprint, *more: str) -> Plan:
    return stage.plan(package, "azureml", [*ML, *more], footprint=footprint)


def deployed(plan: Plan) -> str:
    return f"{ENDPOINT}/deployments/{plan.connection['deployment']}"


def traffic(fake: Fake) -> dict[str, int]:
    found: dict[str, int] = fake.things[ENDPOINT]["properties"]["traffic"]
    return found


def other(fake: Fake, name: str = "m-before", share: int = 100) -> str:
    """An endpoint that serves another package already."""
    path = f"{ENDPOINT}/deployments/{name}"
    fake.things.setdefault(
        ENDPOINT,
        {"id": ENDPOINT, "name": "churn", "location": "westeurope", "tags": {},
         "identity": {"type": "SystemAssigned"},
         "properties": {"authMode": "AADToken", "traffic": {}, "mirrorTraffic": {},
                        "provisioningState": "Succeeded"}},
    )  # fmt: skip
    traffic(fake)[name] = share
    fake.things[path] = {
        "id": path, "name": name, "location": "westeurope", "tags": {},
        "sku": {"name": "Default", "capacity": 3},
        "properties": {
            "endpointComputeType": "Managed", "instanceType": "Standard_F2s_v2",
            "environmentId": f"{SHOP}/environments/e/versions/1", "environmentVariables": {},
            "scaleSettings": {"scaleType": "Default"}, "provisioningState": "Succeeded",
            "requestSettings": {"requestTimeout": "PT7S", "maxConcurrentRequestsPerInstance": 5},
        },
    }  # fmt: skip
    return path


def agree(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    """An endpoint that gives the right answers."""


def differ(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
    raise ParityError("it gives other answers")


def quiet(line: str) -> None:
    """Report nothing."""


def test_azureml_from_nothing(
    fake: Fake, package: Package, footprint: Footprint, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ml_plan(package, footprint)
    at_verification: list[Any] = []

    def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        at_verification.append((url, dict(traffic(fake)), deployed(plan) in fake.things))

    lines: list[str] = []
    url = stage.apply(plan, verify, lines.append)
    name = plan.connection["deployment"]
    assert url == "https://churn.westeurope.inference.ml.azure.com/score"
    assert at_verification == [(f"{url}?deployment={name}", {}, True)]
    assert traffic(fake) == {name: 100}
    sent = fake.things[deployed(plan)]
    assert sent["properties"]["requestSettings"] == {
        "requestTimeout": "PT30S", "maxConcurrentRequestsPerInstance": 256, "maxQueueWait": "PT1S",
    }  # fmt: skip
    assert sent["sku"]["capacity"] == 2
    assert fake.things[ENDPOINT]["properties"]["authMode"] == "AADToken"
    environment = fake.things[f"{SHOP}/environments/modelport-churn/versions/abababababab"]
    assert environment["properties"]["image"] == plan.image
    assert environment["properties"]["inferenceConfig"]["scoringRoute"]["path"] == "/score"
    assert any("InProgress" in line for line in lines)
    assert capsys.readouterr().out == ""  # the SDK's dots are not for whoever reads us

    assert stage.status(plan)["traffic"] == {name: 100}
    stage.destroy(plan, quiet)
    assert not [path for path in fake.things if "onlineEndpoints" in path]
    stage.destroy(plan, quiet)  # nothing is left, and that is no error
    with pytest.raises(NotFoundError):
        stage.status(plan)


@pytest.mark.parametrize(("percent", "before"), [(100, {}), (10, {"m-a": 68, "m-b": 22})])
def test_azureml_beside_others(
    fake: Fake, package: Package, footprint: Footprint, percent: int, before: dict[str, int]
) -> None:
    other(fake, "m-a", 75)
    other(fake, "m-b", 25)
    plan = ml_plan(package, footprint, f"traffic={percent}")
    stage.apply(plan, agree, quiet)
    assert traffic(fake) == {**before, plan.connection["deployment"]: percent}
    assert f"PUT {ENDPOINT}" in fake.asked
    assert {path for path in fake.things if "/deployments/" in path} >= {deployed(plan)}


def test_azureml_deletes_the_old_when_told(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    old = other(fake)
    stage.apply(ml_plan(package, footprint, "keep-old=no"), agree, quiet)
    assert old not in fake.things


def test_azureml_copies_traffic(fake: Fake, package: Package, footprint: Footprint) -> None:
    other(fake)
    plan = ml_plan(package, footprint, "mirror=20", "traffic=0")
    stage.apply(plan, agree, quiet)
    inside = fake.things[ENDPOINT]["properties"]
    assert inside["traffic"] == {"m-before": 100}
    assert inside["mirrorTraffic"] == {plan.connection["deployment"]: 20}


def test_azureml_what_got_copies_gets_a_part(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    """Azure takes no copy for what has live traffic."""
    other(fake)
    stage.apply(ml_plan(package, footprint, "mirror=20", "traffic=0"), agree, quiet)
    plan = ml_plan(package, footprint, "traffic=30")
    with pytest.raises(KeyboardInterrupt):
        stage.apply(plan, agree, lambda line: stop(line, "give m-"))
    inside = fake.things[ENDPOINT]["properties"]
    assert (inside["traffic"], inside["mirrorTraffic"]) == (
        {"m-before": 100}, {plan.connection["deployment"]: 20},
    )  # fmt: skip
    stage.apply(plan, agree, quiet)
    inside = fake.things[ENDPOINT]["properties"]
    assert inside["traffic"] == {"m-before": 70, plan.connection["deployment"]: 30}
    assert inside["mirrorTraffic"] == {}


def stop(line: str, start: str) -> None:
    """Ctrl-C while something is waited for."""
    if line.startswith(start) and line.endswith("InProgress"):
        raise KeyboardInterrupt


def test_azureml_an_old_deployment_that_cannot_be_deleted(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    """The new one serves already, verified: nothing is taken back, but it is said."""
    old = other(fake)
    fake.refuse["DELETE", "/deployments/m-before"] = (403, "ScopeLocked", "it is locked")
    plan, lines = ml_plan(package, footprint, "keep-old=no"), list[str]()
    stage.apply(plan, agree, lines.append)
    assert traffic(fake) == {plan.connection["deployment"]: 100}
    assert old in fake.things
    assert any("m-before could not be deleted" in line and "locked" in line for line in lines)


def test_azureml_waits_for_what_was_interrupted(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    """A deployment that is still being made cannot be deleted; Azure says so with 409."""
    plan = ml_plan(package, footprint)
    answer, busy = fake.answer, [2]

    def at_first_not(method: str, path: str, body: bytes) -> Any:
        if method == "DELETE" and path.endswith(deployed(plan)[-10:]) and busy[0]:
            busy[0] -= 1
            words = {"code": "Conflict", "message": "Another operation is in progress"}
            return 409, {"error": words}, {}
        return answer(method, path, body)

    fake.answer = at_first_not  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stage.apply(plan, agree, lambda line: stop(line, "start the deployment"))
    assert busy == [0]
    assert deployed(plan) not in fake.things


def test_azureml_an_identity_that_may_pull(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    own = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
    plan = ml_plan(package, footprint, f"identity={own}")
    stage.apply(plan, agree, quiet)
    sent = fake.things[ENDPOINT]["identity"]
    assert (sent["type"], list(sent["userAssignedIdentities"])) == ("UserAssigned", [own])
    assert "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action" in plan.rights


def test_azureml_other_answers_are_taken_back(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    old = other(fake)
    plan = ml_plan(package, footprint)
    with pytest.raises(ParityError):
        stage.apply(plan, differ, quiet)
    assert deployed(plan) not in fake.things
    assert old in fake.things
    assert traffic(fake) == {"m-before": 100}


def test_azureml_a_container_that_never_starts(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    other(fake)
    plan = ml_plan(package, footprint)
    fake.fails[f"/deployments/{plan.connection['deployment']}"] = (
        "BadArgument", "User container has crashed or terminated."
    )  # fmt: skip
    fake.answers["/getLogs"] = {"content": "refused: no key, and 0.0.0.0 is not loopback"}
    lines: list[str] = []
    with pytest.raises(PlatformError, match="User container has crashed"):
        stage.apply(plan, agree, lines.append)
    assert any("no key, and 0.0.0.0" in line for line in lines), lines
    assert deployed(plan) not in fake.things
    assert traffic(fake) == {"m-before": 100}


def test_azureml_the_same_package_again_is_an_update(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    stage.apply(ml_plan(package, footprint), agree, quiet)
    plan = ml_plan(package, footprint, "instances=5")
    stage.apply(plan, agree, quiet)
    assert fake.things[deployed(plan)]["sku"]["capacity"] == 5
    # One that fails is put back, and never deleted: it has the traffic.
    with pytest.raises(ParityError):
        stage.apply(ml_plan(package, footprint, "instances=7"), differ, quiet)
    assert fake.things[deployed(plan)]["sku"]["capacity"] == 5
    assert traffic(fake) == {plan.connection["deployment"]: 100}


def test_azureml_a_shift_that_fails_goes_back(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    other(fake)
    plan = ml_plan(package, footprint)
    seen = []

    def verify(plan: Plan, url: str, headers: Mapping[str, str]) -> None:
        fake.fails["/onlineEndpoints/churn"] = ("InternalServerError", "traffic was not updated")

    def report(line: str) -> None:
        if "taking back" in line:
            seen.append(dict(traffic(fake)))
            fake.fails.clear()

    with pytest.raises(PlatformError, match="traffic was not updated"):
        stage.apply(plan, verify, report)
    assert seen == [{plan.connection["deployment"]: 100}]
    assert traffic(fake) == {"m-before": 100}
    assert deployed(plan) not in fake.things


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "AuthorizationFailed", "The client 'x' does not have authorization"),
         "onlineEndpoints/write"),
        ((409, "Conflict", "Another operation is in progress"), "Another operation"),
        ((400, "OutOfQuota", "Not enough quota available"), "ask for quota"),
    ],
)  # fmt: skip
def test_azureml_refusals_are_in_azures_words(
    fake: Fake, package: Package, footprint: Footprint, refusal: Any, words: str
) -> None:
    fake.refuse["PUT", "/onlineEndpoints/churn"] = refusal
    with pytest.raises(PlatformError) as caught:
        stage.apply(ml_plan(package, footprint), agree, quiet)
    assert refusal[1] in str(caught.value)
    assert refusal[2] in str(caught.value)
    assert words in str(caught.value)


def test_azureml_a_workspace_that_is_not_there(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    del fake.things[SHOP]
    with pytest.raises(NotFoundError, match="'shop' was not found"):
        stage.apply(ml_plan(package, footprint), agree, quiet)


@pytest.mark.parametrize("mode", ["aad_token", "key", "aml_token"])
def test_azureml_callers_are_let_in(
    fake: Fake, package: Package, footprint: Footprint, mode: str
) -> None:
    plan = ml_plan(package, footprint, f"auth-mode={mode}")
    stage.apply(plan, agree, quiet)
    headers = azureml.AzureMLApplier().connect(plan.connection).headers()
    wanted = {"aad_token": "token-of-https://ml.azure.com/.default", "key": "the-key",
              "aml_token": "the-token"}  # fmt: skip
    assert headers == {
        "authorization": f"Bearer {wanted[mode]}",
        "azureml-model-deployment": plan.connection["deployment"],
    }


@pytest.mark.parametrize(
    ("shares", "percent", "fill", "wanted"),
    [
        ({}, 100, True, {"n": 100}),
        ({}, 10, True, {"n": 100}),
        ({"a": 100}, 10, True, {"a": 90, "n": 10}),
        ({"a": 50, "b": 50}, 33, True, {"a": 34, "b": 33, "n": 33}),
        ({"a": 1, "b": 99}, 99, True, {"b": 1, "n": 99}),
        ({"a": 90, "n": 10}, 0, True, {"a": 100}),
        ({"n": 100}, 0, True, {}),
        ({"a": 10}, 20, False, {"n": 20}),
        ({"n": 20}, 0, False, {}),
    ],
)
def test_shares_make_a_hundred(
    shares: dict[str, int], percent: int, fill: bool, wanted: dict[str, int]
) -> None:
    assert shift(shares, "n", percent, fill=fill) == wanted


@pytest.mark.parametrize("target", ["azureml", "azure-functions"])
def test_without_credentials_it_says_how_to_log_in(
    package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    from azure.identity import EnvironmentCredential

    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    # The chain's first link only: the others ask the network for a machine's identity.
    for module in (azureml, resource_manager):
        monkeypatch.setattr(module, "DefaultAzureCredential", EnvironmentCredential)
    settings = ML if target == "azureml" else FUNCTIONS
    plan = stage.plan(package, target, settings, footprint=footprint)
    with pytest.raises(PlatformError, match="does not know who asks") as caught:
        stage.status(plan)
    assert "az login" in caught.value.hint


def test_of_many_credentials_only_those_that_were_refused_are_told() -> None:
    from azure.core.exceptions import ClientAuthenticationError

    from modelport.deploy.azure.errors import translate

    error = ClientAuthenticationError(
        "DefaultAzureCredential failed to retrieve a token.\nAttempted credentials:\n"
        "\tManagedIdentityCredential: unavailable\n\tAzureCliCredential: AADSTS700082: The "
        "refresh token has expired due to inactivity.\nTo mitigate this issue, see …"
    )
    told = translate(error, "log in")
    assert told.message == (
        "Azure does not know who asks: DefaultAzureCredential failed to retrieve a token; "
        "AzureCliCredential: AADSTS700082: The refresh token has expired due to inactivity."
    )


def functions_plan(package: Package, footprint: Footprint, *more: str) -> Plan:
    return stage.plan(package, "azure-functions", [*FUNCTIONS, *more], footprint=footprint)


def published(fake: Fake, *, states: tuple[Any, ...] = ({"status": 4},)) -> None:
    """The app that the template makes, and its deployment service."""
    host = fake.url.removeprefix("https://")
    fake.things[SITE] = {
        "id": SITE, "name": "churn-app", "location": "westeurope",
        "properties": {"state": "Running", "defaultHostName": "churn-app.azurewebsites.net",
                       "hostNameSslStates": [
                           {"name": "churn-app.azurewebsites.net", "hostType": "Standard"},
                           {"name": host, "hostType": "Repository"}]},
    }  # fmt: skip
    fake.answers["/api/publish"] = "d-1"
    fake.operations["/api/deployments/d-1"] = list(states)


def template_makes_the_app(fake: Fake, **options: Any) -> None:
    put = fake._put

    def both(path: str, body: bytes) -> Any:
        if "Microsoft.Resources/deployments" in path:
            published(fake, **options)
        return put(path, body)

    fake._put = both  # type: ignore[method-assign]


def test_functions_from_nothing(
    fake: Fake, package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    template_makes_the_app(fake, states=({"status": 1}, {"status": 2}, {"status": 4}))
    plan = functions_plan(package, footprint)
    lines: list[str] = []
    assert stage.apply(plan, agree, lines.append) == "https://churn-app.azurewebsites.net"
    assert any("building" in line for line in lines)
    name = next(path for path in fake.things if "Microsoft.Resources/deployments" in path)
    sent = fake.things[name]["properties"]
    assert sent["mode"] == "Incremental"
    file = next(file for file in plan.files if file.path == "azuredeploy.json")
    assert sent["template"] == json.loads(file.content)
    body = next(body for asked, body in fake.bodies if asked == "POST /api/publish")
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        names = set(archive.namelist())
    assert {"function_app.py", "host.json", "requirements.txt", "modelport/__init__.py",
            "models/churn/manifest.json", "models/churn/model/model.onnx"} <= names  # fmt: skip
    assert not [name for name in names if name.endswith(".pyc")]
    assert stage.status(plan)["state"] == "Running"

    for kind, inner in (("Web/serverfarms", "churn-app"), ("Storage/storageAccounts", "mp")):
        path = f"{GROUP}/providers/Microsoft.{kind}/{inner}"
        if inner == "mp":
            template = json.loads(file.content)["resources"]
            path = path[:-2] + template[0]["name"]
        fake.things[path] = {"id": path, "properties": {}}
    stage.destroy(plan, quiet)
    gone = [asked for asked in fake.asked if asked.startswith("DELETE")]
    assert [path.split("/")[-2] for path in gone] == ["sites", "serverfarms", "storageAccounts"]
    stage.destroy(plan, quiet)


def test_functions_a_new_app_that_fails_is_taken_away(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    template_makes_the_app(fake, states=({"status": 3, "status_text": "hash mismatch"},))
    lines: list[str] = []
    with pytest.raises(PlatformError, match="hash mismatch"):
        stage.apply(functions_plan(package, footprint), agree, lines.append)
    assert SITE not in fake.things
    assert not any("new code" in line for line in lines)


def test_functions_an_app_that_exists_is_never_taken_away(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    published(fake)
    lines: list[str] = []
    with pytest.raises(ParityError):
        stage.apply(functions_plan(package, footprint), differ, lines.append)
    assert SITE in fake.things
    assert any("goes on with the new code" in line for line in lines), "nobody may think otherwise"
    assert not [asked for asked in fake.asked if asked.startswith("DELETE")]


def test_functions_a_template_that_azure_refuses(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    name = f"/deployments/churn-app-{functions_plan(package, footprint).service.tag}"
    fake.fails[name] = ("DeploymentFailed", "At least one resource deployment operation failed.")
    with pytest.raises(PlatformError, match="At least one resource"):
        stage.apply(functions_plan(package, footprint), agree, quiet)


@pytest.mark.parametrize("status", [403, 503])
def test_functions_publishing_waits_for_the_role(
    fake: Fake, package: Package, footprint: Footprint, status: int
) -> None:
    template_makes_the_app(fake)
    refusals = iter([(status, "x", "the identity has no access yet")] * 2)
    answer = fake.answer

    def first_not(method: str, path: str, body: bytes) -> Any:
        if path == "/api/publish" and (refusal := next(refusals, None)):
            return refusal[0], {"error": {"code": refusal[1], "message": refusal[2]}}, {}
        return answer(method, path, body)

    fake.answer = first_not  # type: ignore[method-assign]
    assert stage.apply(functions_plan(package, footprint), agree, quiet)


def test_functions_publishing_that_is_refused(
    fake: Fake, package: Package, footprint: Footprint
) -> None:
    template_makes_the_app(fake)
    fake.refuse["POST", "/api/publish"] = (400, "BadRequest", "the zip file cannot be read")
    with pytest.raises(PlatformError, match="the zip file cannot be read"):
        stage.apply(functions_plan(package, footprint), agree, quiet)
    assert SITE not in fake.things


def test_functions_callers_are_let_in(fake: Fake, package: Package, footprint: Footprint) -> None:
    plan = functions_plan(package, footprint)
    connection = resource_manager.AzureApplier().connect(plan.connection)
    assert connection.headers() == {"x-functions-key": "k"}
    assert f"POST {SITE}/host/default/listkeys" in fake.asked


def test_functions_the_host_starts_late(fake: Fake, package: Package, footprint: Footprint) -> None:
    """Right after publishing it has no keys yet."""
    answer, late = fake.answer, [3]

    def not_yet(method: str, path: str, body: bytes) -> Any:
        if path.endswith("/listkeys") and late[0]:
            late[0] -= 1
            return 503, {"error": {"code": "ServiceUnavailable", "message": "not yet"}}, {}
        return answer(method, path, body)

    fake.answer = not_yet  # type: ignore[method-assign]
    plan = functions_plan(package, footprint)
    connection = resource_manager.AzureApplier().connect(plan.connection)
    assert connection.headers() == {"x-functions-key": "k"}
    assert "Microsoft.Web/sites/host/listkeys/action" in plan.rights


def test_functions_with_a_key_of_their_own(
    fake: Fake, package: Package, footprint: Footprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verification has to show it, too."""
    secret = "api-key-secret=https://keys.vault.azure.net/secrets/churn"
    plan = functions_plan(package, footprint, secret)
    connection = resource_manager.AzureApplier().connect(plan.connection)
    monkeypatch.delenv("MODELPORT_API_KEY", raising=False)
    with pytest.raises(InputError, match="MODELPORT_API_KEY has none"):
        connection.headers()
    monkeypatch.setenv("MODELPORT_API_KEY", "open-sesame-open-sesame")
    assert connection.headers() == {
        "x-functions-key": "k", "x-api-key": "open-sesame-open-sesame",
    }  # fmt: skip


def test_no_token_is_ever_printed(
    fake: Fake, package: Package, footprint: Footprint, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    stage.apply(ml_plan(package, footprint), agree, lines.append)
    captured = capsys.readouterr()
    assert "token-of" not in "\n".join(lines) + captured.out + captured.err
