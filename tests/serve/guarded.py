"""A server with keys, and what clients with and without one send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelport.serve.base import Route

from . import onnx_models
from .packages import build_package
from .routes import label, routes_of
from .running import RunningServer

KEY = "correct-horse-battery-staple"
OTHER_KEY = "0123456789abcdef"
NAME = "guarded"

#: What a client without a valid key may send: all of it is refused.
REFUSED: dict[str, dict[str, str]] = {
    "nothing": {},
    "wrong bearer": {"authorization": "Bearer wrong-horse-battery-staple"},
    "wrong key": {"x-api-key": "wrong-horse-battery-staple"},
    "both wrong": {"authorization": "Bearer wrong", "x-api-key": "wrong"},
    "empty": {"authorization": "Bearer ", "x-api-key": ""},
    "another scheme": {"authorization": f"Basic {KEY}"},
    "no scheme": {"authorization": KEY},
    "a prefix": {"x-api-key": KEY[:-1]},
    "more": {"authorization": f"Bearer {KEY}x"},
    "another case": {"x-api-key": KEY.upper()},
    "a comment of the file": {"x-api-key": "# the key of the tests"},
    "both keys": {"x-api-key": f"{KEY},{OTHER_KEY}"},
}
ACCEPTED: dict[str, dict[str, str]] = {
    "bearer": {"authorization": f"Bearer {KEY}"},
    "scheme in lower case": {"authorization": f"bearer {KEY}"},
    "key": {"x-api-key": KEY},
    "the other key": {"x-api-key": OTHER_KEY},
    "beside the platform's own token": {"authorization": "Bearer eyJ.token", "x-api-key": KEY},
    "beside another scheme": {"authorization": "AWS4-HMAC-SHA256 x", "x-api-key": KEY},
}


class Guarded(RunningServer):
    """A server that wants a key even for its readiness."""

    def wait_ready(self) -> None:
        headers = ACCEPTED["key"]
        path = "/v2/health/ready"
        self.wait_for("readiness", lambda: self.request("GET", path, headers=headers).status == 200)


def write_guarded_package(folder: Path) -> Path:
    golden = {"x": np.ones((2, 8), np.float32)}
    return build_package(folder / NAME, NAME, onnx_models.dense(), golden).path


def write_keys(folder: Path) -> Path:
    """A file of both keys, with everything that such a file may hold."""
    path = folder / "keys"
    path.write_text(f"\n  # the key of the tests\n{KEY}\n\n# and one more\n  {OTHER_KEY}  \n")
    return path


def assert_no_key(text: str | bytes) -> None:
    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
    assert KEY not in shown
    assert OTHER_KEY not in shown


HTTP = [pytest.param(*item, id=label(*item)) for item in routes_of("protocol")]
ROUTES = pytest.mark.parametrize(("protocol", "route"), HTTP)


def path_of(route: Route) -> str:
    return route.example.replace("{model}", NAME)
