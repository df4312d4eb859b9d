"""What callers of Azure ML's scoring route see, by the values that Microsoft's server has.

Arguments: URL. Values are those of ``azureml-inference-server-http`` 1.5.1. The model takes
``x`` float32 [N, 8].
"""

from __future__ import annotations

import sys
import uuid

import requests

URL = sys.argv[1]
ROW = [[1.0] * 8]
LIMIT = 100


def ask(method: str = "POST", path: str = "/score", **headers: str) -> requests.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, URL + path, json={"data": ROW}, headers=names, timeout=60)


def check_success() -> None:
    answer = ask()
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-ms-run-function-failed"] == "False"
    whole, _, decimals = answer.headers["x-ms-run-fn-exec-ms"].partition(".")
    assert (whole + decimals).isdigit()
    assert len(decimals) == 3
    uuid.UUID(answer.headers["x-request-id"])
    assert answer.headers["x-ms-request-id"] == answer.headers["x-request-id"]
    assert "x-ms-client-request-id" not in answer.headers
    print("headers of an answer")


def check_identifiers() -> None:
    answer = ask(x_request_id="mine")
    assert answer.headers["x-request-id"] == answer.headers["x-ms-request-id"] == "mine"
    answer = ask(x_ms_client_request_id="client")
    assert answer.headers["x-ms-client-request-id"] == "client"
    assert answer.headers["x-ms-request-id"] == "client"
    answer = ask(x_ms_request_id="old")
    assert answer.headers["x-ms-client-request-id"] == "old"
    assert answer.headers["x-ms-request-id"] == "old"
    answer = ask(x_ms_request_id="old", x_ms_client_request_id="new", TraceId="t")
    assert answer.headers["x-ms-client-request-id"] == "new"
    assert answer.headers["x-ms-request-id"] == "old"
    assert answer.headers["TraceId"] == "t"
    print("identifiers come back")


def check_limits() -> None:
    for name in ("x_request_id", "x_ms_request_id", "x_ms_client_request_id"):
        answer = ask(**{name: "x" * (LIMIT + 1)})
        assert answer.status_code == 431, (name, answer.status_code)
        assert f"must not exceed {LIMIT} characters" in answer.json()["message"]
        assert ask(**{name: "x" * LIMIT}).status_code == 200
    print("identifiers of more than 100 characters: 431")


def check_errors() -> None:
    answer = ask("DELETE", x_ms_client_request_id="c")
    assert answer.status_code == 405, answer.text
    assert answer.json().keys() == {"message"}
    assert answer.headers["x-ms-client-request-id"] == "c"
    answer = ask(path="/swagger.json?version=2", method="GET")
    assert answer.status_code == 404
    assert answer.json().keys() == {"message"}
    for body in (b"{", b"", b'{"data": [[1]]}'):
        answer = requests.post(f"{URL}/score", data=body, headers={"x-request-id": "r"}, timeout=60)
        assert answer.status_code == 400, answer.text
        assert answer.json().keys() == {"message"}
        assert answer.headers["x-request-id"] == "r"
        assert answer.headers["x-ms-run-function-failed"] == "False"
    print("errors")


def check_probes() -> None:
    for path in ("/", "/healthz", "/ready"):
        assert requests.get(URL + path, timeout=60).status_code == 200
    assert ask("OPTIONS").status_code == 200
    print("probes")


if __name__ == "__main__":
    check_success()
    check_identifiers()
    check_limits()
    check_errors()
    check_probes()
