"""``--set key=value``, names and quantities."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.core.errors import InputError, NotFoundError
from modelport.deploy.base import Settings
from modelport.deploy.settings import (
    describe_settings,
    mebibytes,
    quantity,
    read_settings,
    service_name,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class Some(Settings):
    """A target's settings."""

    region: str = setting("", "where")
    min_replicas: int = setting(1, "fewest")
    public: bool = setting(False, "reachable by all")
    share: float = setting(0.5, "of the traffic")
    mode: str = setting("one", "how", choices=("one", "two"))


def test_values_have_their_types() -> None:
    chosen = read_settings(
        Some, ["min-replicas=3", "public=yes", "share=0.25", "mode=two", "region= eu = 1 "]
    )
    assert chosen == Some(min_replicas=3, public=True, share=0.25, mode="two", region="eu = 1")


def test_names_may_have_underscores() -> None:
    assert read_settings(Some, ["min_replicas=2"]).min_replicas == 2


@pytest.mark.parametrize(
    ("pair", "error", "says"),
    [
        ("min-replicas", InputError, "not a setting: 'min-replicas'"),
        ("min-replica=1", NotFoundError, "min-replicas"),
        ("min-replicas=many", InputError, "not a whole number: 'many'"),
        ("public=perhaps", InputError, "not yes or no: 'perhaps'"),
        ("mode=three", NotFoundError, "three"),
        ("=1", NotFoundError, "setting"),
    ],
)
def test_what_cannot_be_used_is_told(pair: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read_settings(Some, [pair])


def test_every_setting_is_described() -> None:
    rows = {key: (default, text) for key, default, text in describe_settings(Some)}
    assert rows["mode"] == ("one", "how (one, two)")
    assert set(rows) == {"name", "image", "region", "min-replicas", "public", "share", "mode"}


@pytest.mark.parametrize(
    ("text", "size"), [("512Mi", 512 << 20), ("2G", 2 * 10**9), ("1.5Gi", 3 << 29), ("7", 7)]
)
def test_quantities(text: str, size: int) -> None:
    assert quantity(text, "memory") == size


@pytest.mark.parametrize("text", ["", "Mi", "-1Mi", "1 Gi", "1mb", "1e3"])
def test_other_texts_are_no_quantities(text: str) -> None:
    with pytest.raises(InputError, match="not an amount of memory"):
        quantity(text, "memory")


@given(st.integers(min_value=0, max_value=1 << 50))
def test_rounding_to_mebibytes_never_loses_memory(size: int) -> None:
    assert 0 <= quantity(mebibytes(size), "") - size < 1 << 20


@pytest.mark.parametrize("text", ["churn", "a", "churn.v2", "fraud_model", "a" * 63])
def test_service_names(text: str) -> None:
    assert service_name(text) == text.replace(".", "-").replace("_", "-")


@pytest.mark.parametrize("text", ["", "-a", "a-", "1a", "Churn", "a" * 64, "ä"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a service name"):
        service_name(text)
