"""`doctor` before a deployment: images, settings and limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelport.core.errors import InputError, NotFoundError
from modelport.core.package import Package
from modelport.deploy.diagnosis import (
    diagnose_target,
)
from modelport.deploy.diagnosis.image import diagnose_image


def layout(folder: Path, *configurations: dict[str, Any]) -> Path:
    """An OCI layout of images without layers."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    descriptors = []
    for number, configuration in enumerate(configurations):
        (blobs / f"c{number}").write_text(json.dumps(configuration))
        manifest = {"config": {"digest": f"sha256:c{number}"}, "layers": []}
        (blobs / f"m{number}").write_text(json.dumps(manifest))
        descriptors.append({"digest": f"sha256:m{number}"})
    (blobs / "index").write_text(json.dumps({"manifests": descriptors}))
    (folder / "index.json").write_text(json.dumps({"manifests": [{"digest": "sha256:index"}]}))
    return folder


def image(architecture: str = "amd64", **config: Any) -> dict[str, Any]:
    config = {"User": "65532:65532", "Entrypoint": ["modelport", "serve"], **config}
    return {"os": "linux", "architecture": architecture, "config": config}


def test_an_image_for_another_processor(tmp_path: Path) -> None:
    arm = layout(tmp_path / "arm", image("arm64"))
    for target in ("sagemaker", "lambda", "cloudrun", "vertex", "azureml", "azure-functions"):
        found = diagnose_image(arm, target)
        assert "the image is for linux/arm64" in found[0].symptom
        assert "exec format error" in found[0].cause
    assert diagnose_image(arm, "kubernetes") == []


def test_an_image_for_several_processors(tmp_path: Path) -> None:
    both = layout(tmp_path / "both", image("amd64"), image("arm64"))
    assert diagnose_image(both, "cloudrun") == []
    (found,) = diagnose_image(both, "lambda")
    assert "index of 2 platforms" in found.symptom


@pytest.mark.parametrize(
    ("config", "target", "symptom"),
    [
        ({"User": ""}, "kubernetes", "user is root"),
        ({"User": "0"}, "kserve", "user is 0"),
        ({"User": "app"}, "kubernetes", "user is app"),
        ({"Entrypoint": None}, "sagemaker", "no entry point"),
    ],
)
def test_what_an_image_says_of_itself(
    tmp_path: Path, config: dict[str, Any], target: str, symptom: str
) -> None:
    found = diagnose_image(layout(tmp_path / "i", image(**config)), target)
    assert symptom in found[0].symptom


def test_what_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an OCI image layout"):
        diagnose_image(tmp_path, "lambda")
    broken = layout(tmp_path / "broken", image())
    (broken / "blobs" / "sha256" / "c0").unlink()
    with pytest.raises(InputError, match="damaged"):
        diagnose_image(broken, "lambda")
    escaping = layout(tmp_path / "escaping", image())
    (escaping / "index.json").write_text('{"manifests": [{"digest": "sha256:../../x"}]}')
    with pytest.raises(InputError, match="not a digest"):
        diagnose_image(escaping, "lambda")


@pytest.mark.parametrize(
    ("target", "pairs", "architecture"),
    [
        ("lambda", ["architecture=arm64"], "arm64"),
        ("lambda", [], "amd64"),
        ("sagemaker", ["instance_type=ml.c7g.large"], "arm64"),
        ("sagemaker", ["instance-type=ml.g5.xlarge"], "amd64"),
        ("sagemaker", ["instance-type=ml.m5.large"], "amd64"),
    ],
)
def test_the_machine_that_is_set_decides_on_the_architecture(
    tmp_path: Path, target: str, pairs: list[str], architecture: str
) -> None:
    for name in ("arm64", "amd64"):
        folder = layout(tmp_path / name, image(name))
        found = diagnose_target(target, None, pairs, image=str(folder))
        faults = [finding for finding in found if finding.weight == "fault"]
        assert bool(faults) == (name != architecture)
        assert all(f"runs linux/{architecture}" in finding.symptom for finding in faults)


@pytest.mark.parametrize(
    "index",
    ['{"manifests": [{}]}', '{"manifests": ["x"]}', '{"manifests": 1}', '{"manifests": null}',
     '{"manifests": [{"digest": "sha256:m0", "platform": 1}]}', "[]",
     '{"manifests": [{"digest": 1}]}'],
)  # fmt: skip
def test_a_damaged_index_is_told_as_one(tmp_path: Path, index: str) -> None:
    broken = layout(tmp_path / "broken", image())
    (broken / "index.json").write_text(index)
    with pytest.raises(InputError, match="damaged"):
        diagnose_image(broken, "lambda")


def test_an_index_that_names_itself_ends(tmp_path: Path) -> None:
    folder = layout(tmp_path / "loop", image())
    own = {"digest": "sha256:index"}
    both = {"manifests": [own, {"digest": "sha256:m0"}]}
    (folder / "blobs" / "sha256" / "index").write_text(json.dumps(both))
    assert diagnose_image(folder, "cloudrun") == []


def test_an_unknown_target() -> None:
    with pytest.raises(NotFoundError, match="kubernetes"):
        diagnose_target("mainframe", None, [])


def test_a_target_s_known_failures_are_notes_and_a_message_s_are_faults() -> None:
    notes = diagnose_target("kubernetes", None, [])
    assert {finding.weight for finding in notes} == {"note"}
    (fault,) = diagnose_target("kubernetes", None, [], message="reason: CrashLoopBackOff")
    assert fault.weight == "fault"
    (unknown,) = diagnose_target("kubernetes", None, [], message="\x00\n\n")
    assert unknown.weight == "note"


def test_a_setting_that_is_missing_is_a_fault(package: Package) -> None:
    found = diagnose_target("cloudrun", package, [])
    assert len(found) == 1
    assert found[0].weight == "fault"
    assert "--set" in found[0].remedy + found[0].symptom


def test_a_limit_that_is_exceeded_is_a_fault(package: Package) -> None:
    pairs = ["project=p-123456", "region=europe-west1", "timeout=3601", "image=r.example/x"]
    found = diagnose_target("cloudrun", package, pairs, message="none")
    faults = [finding for finding in found if finding.weight == "fault"]
    assert any("3601 s of at most 3600 s" in finding.symptom for finding in faults)
