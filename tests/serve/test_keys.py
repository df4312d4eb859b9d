"""Where keys come from, which are refused, and that they are shown nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelport.core.errors import InputError, NotFoundError
from modelport.core.options import ServeOptions
from modelport.serve.base import ModelSpec
from modelport.serve.guard import Guard
from modelport.serve.stage import serve

from . import running
from .guarded import (
    ACCEPTED,
    KEY,
    NAME,
    OTHER_KEY,
    assert_no_key,
    write_guarded_package,
    write_keys,
)
from .running import Answer, RunningServer


@pytest.fixture(scope="module")
def package(module_path: Path) -> Path:
    return write_guarded_package(module_path)


@pytest.fixture(scope="module")
def keys(module_path: Path) -> Path:
    return write_keys(module_path)


def assert_refused(answer: Answer) -> None:
    assert answer.status == 401, answer.body
    assert answer.headers["www-authenticate"] == "Bearer"
    assert b"no valid API key" in answer.body
    assert_no_key(answer.body)


def test_options_do_not_show_the_key() -> None:
    assert_no_key(repr(ServeOptions(api_key=KEY)))
    assert_no_key(repr(Guard.of(ServeOptions(api_key=KEY))))
    assert_no_key(repr(vars(Guard.of(ServeOptions(api_key=KEY)))))


def test_a_key_of_the_environment(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = running.environment
    monkeypatch.setattr(
        running, "environment", lambda home: {**environment(home), "MODELPORT_API_KEY": KEY}
    )
    with RunningServer(tmp_path / "server", [package]) as server:
        assert_refused(server.get("/v2/models"))
        assert server.request("GET", "/v2/models", headers=ACCEPTED["key"]).status == 200
        assert_no_key(Path(f"/proc/{server.process.pid}/cmdline").read_bytes())
    assert_no_key(server.log())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_let_in_by_key_or_consent_alone(
    package: Path, keys: Path, host: str
) -> None:
    specs = [ModelSpec(NAME, 1, str(package))]
    # The port is refused, so that nothing ever listens.
    alone = ServeOptions(host=host, port=0)
    for options, message in (
        (alone, "nobody is authenticated"),
        (replace(alone, api_key=KEY), "port is 0"),
        (replace(alone, api_key_file=str(keys)), "port is 0"),
        (replace(alone, allow_anonymous=True), "port is 0"),
        (replace(alone, host="127.0.0.1"), "port is 0"),
        (replace(alone, host="::1"), "port is 0"),
    ):
        with pytest.raises(InputError, match=message):
            serve(specs, options, print)


def write(path: Path, content: bytes) -> ServeOptions:
    path.write_bytes(content)
    return ServeOptions(api_key_file=str(path))


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (f"{KEY}\n".encode(), [KEY]),
        (KEY.encode(), [KEY]),
        (f"\ufeff{KEY}\r\n{OTHER_KEY}\r\n".encode(), [KEY, OTHER_KEY]),
        (f"# comment\n \t# {OTHER_KEY}\n\n{KEY}\n".encode(), [KEY]),
        ("schlüssel-aus-umlauten-ä\n".encode(), ["schlüssel-aus-umlauten-ä"]),
    ],
)
def test_files_of_keys(tmp_path: Path, content: bytes, known: list[str]) -> None:
    guard = Guard.of(write(tmp_path / "keys", content))
    assert guard.closed
    for key in (KEY, OTHER_KEY, "schlüssel-aus-umlauten-ä", "# comment", f"# {OTHER_KEY}"):
        with (
            contextlib.nullcontext() if key in known else pytest.raises(Exception, match="API key")
        ):
            guard.check({"x-api-key": key})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no key"),
        (b"\n# nothing\n", "holds no key"),
        (b"secret\n", "key 1 has 6 characters"),
        (f"{KEY}\nsecret-secret\n".encode(), "key 2 has 13 characters"),
        (b"\xff\xfe" * 20, "cannot read the API key file"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Guard.of(write(tmp_path / "keys", content))
    assert "secret" not in str(raised.value)
    assert_no_key(str(raised.value))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="API key file"):
        Guard.of(ServeOptions(api_key_file=str(tmp_path / "none")))
    with pytest.raises(InputError, match="cannot read"):
        Guard.of(ServeOptions(api_key_file=str(tmp_path)))


def test_a_short_key_of_the_environment() -> None:
    with pytest.raises(InputError, match="key 1 has 6 characters") as raised:
        Guard.of(ServeOptions(api_key="secret"))
    assert "secret" not in str(raised.value)


def test_no_server_starts_with_a_broken_guard(
    package: Path, tmp_path: Path, launch: Callable[..., RunningServer]
) -> None:
    server = launch([package], ["--api-key-file", tmp_path / "none"])
    assert server.wait_exit() == 2
    assert "API key file" in server.log()
    assert "Traceback" not in server.log()
