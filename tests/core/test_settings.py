"""Flag > environment > settings file > default."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelport.core.errors import InputError, NotFoundError
from modelport.core.options import ServeOptions
from modelport.core.settings import resolve


@dataclass(frozen=True)
class Options:
    host: str = "default"
    port: int = 1
    grace: float = 1.5
    quiet: bool = False


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_order_of_the_places(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    flags: dict[str, object] = {"port": None}
    assert resolve(Options, flags, environment=variables) == Options()
    (tmp_path / "modelport.toml").write_text('port = 2\nhost = "file"\n')
    assert resolve(Options, flags, environment=variables) == Options("file", 2)
    variables["MODELPORT_PORT"] = "3"
    assert resolve(Options, flags, environment=variables) == Options("file", 3)
    flags["port"] = 4
    assert resolve(Options, flags, environment=variables) == Options("file", 4)


def test_false_and_zero_are_values() -> None:
    variables = {"MODELPORT_PORT": "5", "MODELPORT_QUIET": "yes"}
    assert resolve(Options, {"port": 0, "quiet": False}, environment=variables) == Options(port=0)


def test_another_settings_file(tmp_path: Path) -> None:
    (tmp_path / "modelport.toml").write_text("port = 2")
    (tmp_path / "other.toml").write_text("port = 7\nunknown = 1\n[table]\na = 1")
    variables = {"MODELPORT_CONFIG": "other.toml"}
    assert resolve(Options, environment=variables).port == 7
    with pytest.raises(NotFoundError, match=r"missing\.toml"):
        resolve(Options, environment={"MODELPORT_CONFIG": "missing.toml"})


@pytest.mark.parametrize("content", [b"port = ", b"port 2", b"\xff = 1"])
def test_a_settings_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "modelport.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"settings file is not TOML.*modelport\.toml"):
        resolve(Options, environment={})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("1", "true", "True", "YES", "on")),
        *((text, False) for text in ("0", "false", "no", "OFF", "")),
    ],
)
def test_booleans(text: str, value: bool, tmp_path: Path) -> None:
    assert resolve(Options, environment={"MODELPORT_QUIET": text}).quiet is value
    (tmp_path / "modelport.toml").write_text(f"quiet = {str(value).lower()}")
    assert resolve(Options, environment={}).quiet is value


@pytest.mark.parametrize(
    ("variable", "text", "kind"),
    [
        ("MODELPORT_PORT", "many", "int"),
        ("MODELPORT_PORT", "1.5", "int"),
        ("MODELPORT_PORT", "", "int"),
        ("MODELPORT_GRACE", "long", "float"),
        ("MODELPORT_QUIET", "perhaps", "bool"),
    ],
)
def test_values_of_another_type(variable: str, text: str, kind: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(Options, environment={variable: text})
    assert caught.value.line == f"not a {kind}: {text!r} (at {variable})"


def test_the_place_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "modelport.toml").write_text('port = "x"')
    with pytest.raises(InputError, match=r"modelport\.toml: port"):
        resolve(Options, environment={})


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MODELPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODELPORT_MAX_BODY", "1000")
    assert resolve(ServeOptions) == ServeOptions(max_body=1000)
