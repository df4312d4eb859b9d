"""Cloud Run with a person's own login: google-auth itself, against a token endpoint from here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import google.auth.transport.requests
import pytest

from modelport.adapters import find_adapter
from modelport.core.errors import UnauthenticatedError

URL = "https://candidate---churn-abc-ew.a.run.app/"


class Answer:
    """What a transport of google-auth hands back."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.status, self.headers = 200, {"content-type": "application/json"}
        self.data = json.dumps(document).encode()


@pytest.fixture
def logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A login of ``gcloud auth application-default``, and what its token endpoint is asked."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "example")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    asked: list[tuple[str, dict[str, Any]]] = []
    person = {
        "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
    }  # fmt: skip

    def log_in(answer: dict[str, Any], stands_in_for: str = "") -> list[Any]:
        document: dict[str, Any] = person
        if stands_in_for:
            url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
            document = {
                "type": "impersonated_service_account", "source_credentials": person,
                "service_account_impersonation_url": f"{url}{stands_in_for}:generateAccessToken",
            }  # fmt: skip
        (tmp_path / "application_default_credentials.json").write_text(json.dumps(document))

        def send(self: Any, url: str, method: str = "GET", body: Any = None, **_: Any) -> Answer:
            text = body.decode() if isinstance(body, bytes) else str(body)
            read = json.loads(text) if text.startswith("{") else parse_qs(text)
            asked.append((url, read))
            return Answer(answer)

        def post(self: Any, method: str, url: str, data: Any = None, **_: Any) -> Any:
            asked.append((url, json.loads(data)))
            return type("Response", (), {"status_code": 200, "json": lambda self: answer})()

        monkeypatch.setattr(google.auth.transport.requests.Request, "__call__", send)
        monkeypatch.setattr(google.auth.transport.requests.AuthorizedSession, "request", post)
        return asked

    return log_in


def test_a_persons_login_has_an_identity_token_too(logged_in: Callable[..., Any]) -> None:
    """`fetch_id_token` knows key files and Google's own machines only."""
    logged_in({"access_token": "a", "expires_in": 3600, "id_token": "who-i-am"})
    carrier = find_adapter("access", "google").load().open(URL)
    assert carrier._headers == {"authorization": "Bearer who-i-am"}


def test_a_login_without_one_says_what_to_do(logged_in: Callable[..., Any]) -> None:
    logged_in({"access_token": "a", "expires_in": 3600})
    with pytest.raises(UnauthenticatedError, match="wants an identity token") as error:
        find_adapter("access", "google").load().open(URL)
    assert "print-identity-token" in error.value.hint


def test_an_account_that_is_stood_in_for(logged_in: Callable[..., Any]) -> None:
    token = "e30.eyJleHAiOiA0MTAyNDQ0ODAwfQ.c2ln"
    asked = logged_in(
        {"access_token": "a", "accessToken": "a", "expires_in": 3600, "token": token,
         "expireTime": "2100-01-01T00:00:00Z"},
        "deployer@acme-ml.iam.gserviceaccount.com",
    )  # fmt: skip
    carrier = find_adapter("access", "google").load().open(URL)
    assert carrier._headers == {"authorization": f"Bearer {token}"}
    audiences = [body["audience"] for _, body in asked if "audience" in body]
    assert audiences == ["https://churn-abc-ew.a.run.app"]
