"""The Helm chart gives the same objects as the manifests, in the real Helm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modelport.core.package import Package
from modelport.deploy import documents, stage
from modelport.deploy.base import Plan
from modelport.deploy.kubernetes import helm
from modelport.deploy.service import Footprint, Service
from tests.deploy import kubetools

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"image=registry.example/churn@{DIGEST}"
KEY = "key-secret=churn-keys/key"

CHOICES = {
    "a key": [KEY],
    "anonymous": ["anonymous=true"],
    "fixed replicas": [KEY, "replicas=3", "max-replicas=3"],
    "everything": [
        KEY, "grpc=true", "host=models.example.com", "ingress-class=nginx", "tls-secret=cert",
        "service-monitor=true", "monitor-labels=release=prometheus", "clients=shop,crm",
        "pull-secret=registry", "context=prod east",
    ],
    "open to all": ["anonymous=true", "clients=*", "host=m.example.com", "service-monitor=true"],
    "bytes and cores": [KEY, "memory=1Gi", "cpu=1500m", "namespace=on", "name=yes"],
}  # fmt: skip


def planned(
    package: Package, footprint: Footprint, folder: Path, settings: list[str]
) -> tuple[Plan, Path, Path]:
    """A plan, its folder of manifests and its chart."""
    plan = stage.plan(package, "kubernetes", [IMAGE, *settings], footprint=footprint)
    stage.write(plan, folder)
    return plan, folder / "manifests", folder / "helm" / plan.service.name


def by_kind(documents_: list[Any]) -> dict[str, Any]:
    assert len({document["kind"] for document in documents_}) == len(documents_)
    return {document["kind"]: document for document in documents_}


def plain_objects(folder: Path) -> dict[str, Any]:
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return by_kind([yaml.safe_load((folder / name).read_text()) for name in names])


def rendered(plan: Plan, chart: Path, *more: str) -> str:
    namespace = plan.connection["namespace"]
    return kubetools.run(
        kubetools.tool("helm"), "template", plan.service.name, chart, "-n", namespace, *more
    )


@pytest.mark.parametrize("settings", CHOICES.values(), ids=CHOICES.keys())
def test_the_chart_renders_to_the_manifests(
    package: Package, footprint: Footprint, tmp_path: Path, settings: list[str]
) -> None:
    plan, manifests, chart = planned(package, footprint, tmp_path, settings)
    objects = by_kind(list(yaml.safe_load_all(rendered(plan, chart))))
    assert objects == plain_objects(manifests)
    built = kubetools.run(kubetools.tool("kubectl"), "kustomize", manifests)
    assert by_kind(list(yaml.safe_load_all(built))) == plain_objects(manifests)


@pytest.mark.parametrize("settings", CHOICES.values(), ids=CHOICES.keys())
def test_the_chart_is_clean(
    package: Package, footprint: Footprint, tmp_path: Path, settings: list[str]
) -> None:
    _, _, chart = planned(package, footprint, tmp_path, settings)
    said = kubetools.run(kubetools.tool("helm"), "lint", "--strict", chart)
    assert "[ERROR]" not in said
    assert "[WARNING]" not in said
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    assert kubetools.run(kubetools.tool("helm"), "package", chart, "-d", tmp_path / "out")


def test_other_values_give_what_they_say(
    package: Package, footprint: Footprint, tmp_path: Path
) -> None:
    plan, _, chart = planned(package, footprint, tmp_path, [KEY])
    values = {
        "env": [{"name": "MODELPORT_TIMEOUT", "value": "5"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "ml", "operator": "Exists"}],
        "pullSecret": "registry",
        "replicas": 4,
        "autoscaling": {"maxReplicas": 4},
        "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
        "ingress": {"host": "a.example.com", "tlsSecret": "cert"},
    }
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(values))
    objects = by_kind(
        list(yaml.safe_load_all(rendered(plan, chart, "-f", str(tmp_path / "more.yaml"))))
    )
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "MODELPORT_TIMEOUT", "value": "5"} in pod["containers"][0]["env"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == values["tolerations"]
    assert objects["Deployment"]["spec"]["replicas"] == 4
    assert "HorizontalPodAutoscaler" not in objects
    assert objects["ServiceMonitor"]["metadata"]["labels"]["release"] == "p"
    assert objects["Ingress"]["spec"]["tls"] == [{"hosts": ["a.example.com"], "secretName": "cert"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("keySecret.name=", "anonymous=false"), "not both, not neither"),
        (("anonymous=true",), "not both, not neither"),
        (("replicas=0",), "minimum"),
        (("replica=2",), "replica"),
        (("autoscaling.maxReplicas=many",), "integer"),
        (("keySecret.name=a", "keySecret.key="), "keySecret.key"),
    ],
)
def test_wrong_values_are_refused(
    package: Package, footprint: Footprint, tmp_path: Path, values: tuple[str, ...], message: str
) -> None:
    plan, _, chart = planned(package, footprint, tmp_path, [KEY])
    flags = [part for value in values for part in ("--set", value)]
    with pytest.raises(AssertionError, match=message):
        rendered(plan, chart, *flags)


@pytest.mark.parametrize("tag", ["123456789e12", "000000000012", "012345670123", "1234e5678901"])
def test_a_digest_that_looks_like_a_number_stays_text(
    package: Package,
    footprint: Footprint,
    tmp_path: Path,
    tag: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Go reads 123456789e12 as a number, and y as true; PyYAML does not. Labels must be text.
    monkeypatch.setattr(Service, "tag", tag)
    plan, manifests, chart = planned(package, footprint, tmp_path, [KEY, "name=y"])
    (tmp_path / "rendered.yaml").write_text(rendered(plan, chart))
    for path in [manifests / "deployment.yaml", tmp_path / "rendered.yaml"]:
        read = kubetools.run(
            kubetools.tool("kubectl"), "annotate", "--local", "-f", path, "a=b", "-o",
            "jsonpath={.metadata.name} {.metadata.labels.app\\.kubernetes\\.io/version}\n",
        )  # fmt: skip
        assert set(read.split()) == {"y", tag}


def test_a_template_keeps_what_is_no_expression() -> None:
    text = helm.template({"a": "100% of it", "b": [helm.expression("int .Values.x"), "%"]})
    assert text == documents.to_yaml({"a": "100% of it", "b": ["x", "%"]}).replace(
        "- x", "- {{ int .Values.x }}"
    )
