"""Optional packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelport.core.errors import MissingPackageError
from modelport.core.lazy import load_module


def test_what_is_there_is_imported() -> None:
    assert load_module("json", extra="", purpose="to test") is json


def test_what_is_missing_is_explained() -> None:
    with pytest.raises(MissingPackageError) as caught:
        load_module("no_such_package.part", extra="torch", purpose="to read models")
    assert caught.value.message == "package no_such_package is needed to read models"
    assert caught.value.hint == 'install it with: pip install "modelport[torch]"'
    with pytest.raises(MissingPackageError, match="install it with: pip install") as caught:
        load_module("no_such_package", extra="", purpose="to test")
    assert '"no_such_package"' in caught.value.hint


def test_what_a_module_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_of_this_test.py").write_text("import not_installed_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match="not_installed_at_all is needed"):
        load_module("adapter_of_this_test", extra="x", purpose="to test")
    assert "adapter_of_this_test" not in sys.modules


def test_defects_of_ours_are_no_missing_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModuleNotFoundError, match="modelport"):
        load_module("modelport.no_such_module", extra="", purpose="to test")
    (tmp_path / "broken_in_this_test.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        load_module("broken_in_this_test", extra="", purpose="to test")
