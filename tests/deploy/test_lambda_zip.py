"""Lambda as a zip file: built from locked wheels, deployed in moto, and run as Lambda runs it.

Of the environment only what Lambda's own Python has is beside the file: the standard library and
the runtime interface client. So a library that was forgotten is missed here, too.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import boto3
import pytest

from modelport.core.digest import sha256_file
from modelport.core.errors import InputError, LimitError, ParityError
from modelport.core.package import Package
from modelport.deploy import limits, stage
from modelport.deploy.aws import archive
from modelport.deploy.base import Plan
from modelport.deploy.service import Footprint
from modelport.serve.awslambda import create_handler

from .aws_plans import IMAGE, aws_plan, complaints, every_call
from .containers import CACHE
from .test_lambda import (  # noqa: F401 - fixtures
    ROOT,
    accept,
    cloud,
    emulator,
    free_port,
    infer_event,
    invoke,
    left_over,
    no_report,
    plan_of,
    refuse,
    tool,
)

ZIP: Final = ("package=zip", "region=eu-west-1", "bucket=depot")
#: What Lambda's own Python has.
CLIENT: Final = ("awslambdaric", "simplejson", "snapshot_restore_py.py", "runtime_client*.so")
HERE: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(autouse=True)
def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels are fetched once, for this Python: it is the one that can run here."""
    monkeypatch.setenv("MODELPORT_CACHE", str(CACHE))
    monkeypatch.setattr(archive, "PYTHON", HERE)


@pytest.fixture
def depot(cloud: None) -> Any:  # noqa: F811
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="depot", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return s3


def machine() -> str:
    return os.uname().machine


def test_every_call_is_one_that_aws_knows(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, *ZIP)
    assert {call.id: complaints(call) for call in every_call(plan) if complaints(call)} == {}
    assert not plan.image
    assert plan.calls[0].id == "put-archive"  # before anything is created
    create = next(c for c in plan.calls if c.id == "create-function")
    assert create.parameters["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert not any("ecr:" in right for right in plan.rights)


def test_without_a_bucket_only_sam_deploys_it(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, "package=zip", "region=eu-west-1")
    assert plan.calls == ()
    assert any("--set bucket=" in note for note in plan.notes)
    with pytest.raises(InputError, match="cannot make the calls"):
        stage.apply(plan, accept, no_report)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("package=zip", "region=eu-west-1", "bucket=a/b"), "not the name of a bucket"),
        ((IMAGE, "bucket=depot"), "only a zip goes through a bucket"),
        ((IMAGE, "log-days=29"), "cannot be kept for 29 days"),
    ],
)
def test_wrong_settings_are_refused_with_a_hint(
    settings: tuple[str, ...], message: str, package: Package, footprint: Footprint
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        aws_plan(package, footprint, "lambda", *settings)
    assert "--set" in caught.value.hint


def test_the_zip_file_is_deployed_and_goes(
    package: Package, footprint: Footprint, depot: Any
) -> None:
    plan = plan_of(package, footprint, *ZIP)
    with pytest.raises(ParityError):
        stage.apply(plan, refuse, no_report)
    assert left_over() == []
    assert "Contents" not in depot.list_objects_v2(Bucket="depot")
    stage.apply(plan, accept, no_report)
    assert "Contents" not in depot.list_objects_v2(Bucket="depot")  # Lambda has a copy
    function = boto3.client("lambda").get_function(FunctionName="churn")["Configuration"]
    assert function["Runtime"] == "python3.12"
    assert function["Handler"] == "modelport.serve.awslambda.handler"
    assert function["CodeSize"] > 30e6
    stage.apply(plan, accept, no_report)
    stage.destroy(plan, no_report)
    assert left_over() == []


def test_what_is_too_large_is_refused_before_anything_is_created(
    package: Package, footprint: Footprint, depot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(package, footprint, *ZIP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelport.deploy.targets.awslambda.UNPACKED", 262_144_000)
        with pytest.raises(LimitError, match=r"unzipped: 26214\d+ B of at most 250 MiB") as caught:
            plan_of(package, footprint, *ZIP)
    assert "--set package=image" in caught.value.hint
    # An estimate that was too low: the file itself is held against the same limit.
    small = [_smaller(limit) for limit in limits.read_limits()[1]]
    monkeypatch.setattr(limits, "read_limits", lambda: ("2026-01-01", tuple(small)))
    with pytest.raises(LimitError, match="unzipped"):
        stage.apply(plan, accept, no_report)
    assert left_over() == []


def _smaller(limit: limits.Limit) -> limits.Limit:
    if limit.id != "lambda.zip":
        return limit
    return limits.Limit(**{**limit.__dict__, "most": 1e6})


@pytest.fixture(scope="module")
def unpacked(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The function as Lambda unpacks it."""
    folder = tmp_path_factory.mktemp("function")
    source = folder / "modelport"  # that nobody edits in between
    shutil.copytree(ROOT / "src" / "modelport", source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELPORT_CACHE", str(CACHE))
        patch.setattr(archive, "PYTHON", HERE)
        patch.setattr(archive, "files", lambda name: source)
        archive.pack_function(package, machine(), folder / "a.zip")
        archive.pack_function(package, machine(), folder / "b.zip")
    assert sha256_file(folder / "a.zip") == sha256_file(folder / "b.zip")
    with zipfile.ZipFile(folder / "a.zip") as file:
        file.extractall(folder / "task")
        assert {info.external_attr >> 16 for info in file.infolist()} == {0o644}
        assert not [name for name in file.namelist() if "__pycache__" in name]
    return folder / "task"


def test_it_answers_under_the_emulator_with_nothing_else_installed(
    package: Package,
    footprint: Footprint,
    emulator: str,  # noqa: F811
    unpacked: Path,
    tmp_path: Path,
) -> None:
    create = next(c for c in plan_of(package, footprint, *ZIP).calls if c.id == "create-function")
    client = tmp_path / "client"
    client.mkdir()
    (installed,) = Path(tool("python", "clients")).parent.parent.glob("lib/*/site-packages")
    for pattern in CLIENT:
        (found,) = installed.glob(pattern)
        (client / found.name).symlink_to(found)
    start = (
        f"import sys; sys.path[:0] = [{str(unpacked)!r}, {str(client)!r}]; "
        "sys.argv[1:] = [sys.argv[-1]]; "
        "from awslambdaric.__main__ import main; main(sys.argv)"
    )
    handler = create.parameters["Handler"]
    program = [sys.executable, "-S", "-c", start, handler]
    variables = {
        key: value.replace("/var/task", str(unpacked))
        for key, value in create.parameters["Environment"]["Variables"].items()
    }
    ours, runtime = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = {
        "PATH": os.environ["PATH"], **variables, "HOME": str(tmp_path),
        "AWS_LAMBDA_FUNCTION_NAME": "churn", "AWS_REGION": "eu-west-1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "29", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
    }  # fmt: skip
    arguments = ["--runtime-interface-emulator-address", ours, "--runtime-api-address", runtime]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [emulator, *arguments, *program], env=environment, stdout=log, stderr=log, cwd=tmp_path,
            start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            said = invoke(ours, infer_event())
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    told = (tmp_path / "log").read_text()
    assert said.get("statusCode") == 200, told
    expected = create_handler([package.path])(infer_event())
    (output,), (wanted,) = (json.loads(answer["body"])["outputs"] for answer in (said, expected))
    assert output["data"] == wanted["data"]


def test_the_script_builds_the_same_folder(
    package: Package,
    footprint: Footprint,
    unpacked: Path,
    tmp_path: Path,
) -> None:
    plan: Plan = plan_of(package, footprint, "package=zip", "region=eu-west-1")
    stage.write(plan, tmp_path)
    script = tmp_path / "build.sh"
    assert script.stat().st_mode & 0o111
    script.write_text(
        script.read_text().replace("--python-version 3.12", f"--python-version {HERE}")
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "build.sh", str(package.path)], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built, wanted = _listing(tmp_path / "build"), _listing(unpacked)
    assert wanted - built == set()
    # What is in the script's alone: tests, and what lies beside a wheel's modules.
    assert not {name for name in built - wanted if "/tests/" not in name and "bin/" not in name}


def _listing(folder: Path) -> set[str]:
    """The libraries and the model; modelport itself is copied as it is in both."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and ".dist-info/" not in path.as_posix()
        and path.relative_to(folder).parts[0] != "modelport"
    }


def test_the_lock_has_a_hash_for_everything(package: Package, footprint: Footprint) -> None:
    plan = plan_of(package, footprint, "package=zip", "region=eu-west-1")
    (locked,) = (file.content for file in plan.files if file.path == "requirements.txt")
    entries = locked.replace(" \\\n", " ").splitlines()
    assert all("--hash=sha256:" in entry for entry in entries)
    names = {entry.partition("==")[0] for entry in entries}
    assert "onnxruntime" in names
    assert not names & {"granian", "grpcio", "uvloop", "awslambdaric"}


def test_a_package_s_archive_is_always_the_same(package: Package, tmp_path: Path) -> None:
    for name in ("a", "b"):
        archive.pack_package(package, tmp_path / name)
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    assert io.BytesIO((tmp_path / "a").read_bytes()).read(2) == b"\x1f\x8b"
