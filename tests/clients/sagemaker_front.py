"""What stands between boto3 and a container: SageMaker's front end, as far as its API says.

It maps ``/endpoints/{name}/invocations`` to the container's ``/invocations``, or for a multi-model
endpoint to ``/models/{hash}/invoke`` after it has the model loaded, and answers what is not 2xx as
``ModelError`` (source: botocore's model of ``sagemaker-runtime``).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}

import boto3
from botocore.config import Config

_KEPT = ("content-type", "accept")
_OWN = "x-amzn-sagemaker-"


class Front(BaseHTTPRequestHandler):
    """One endpoint; `store` is where the platform has put its models."""

    protocol_version = "HTTP/1.1"
    port = 0
    store = ""

    def do_POST(self) -> None:
        assert self.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
        assert self.path == "/endpoints/endpoint/invocations"
        body = self.rfile.read(int(self.headers["content-length"]))
        kept = {k: v for k, v in self.headers.items() if k.lower() in _KEPT or _OWN in k.lower()}
        target = self.headers.get("x-amzn-sagemaker-target-model")
        if self.store:
            status, headers, answer = self._invoke_one_of_many(target or "", body, kept)
        else:
            status, headers, answer = self._ask("POST", "/invocations", body, kept)
        if status // 100 != 2:
            document = {
                "Message": "Received an error from primary",
                "OriginalStatusCode": status,
                "OriginalMessage": answer.decode(),
                "LogStreamArn": "arn",
            }
            status, answer = 424, json.dumps(document).encode()
            headers = {"content-type": "application/json", "x-amzn-errortype": "ModelError"}
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() in (*_KEPT, "x-amzn-errortype") or key.lower().startswith(_OWN):
                self.send_header(key, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _invoke_one_of_many(self, target: str, body: bytes, headers: dict[str, str]) -> Any:
        name = hashlib.sha256(target.encode()).hexdigest()
        answer = self._ask("POST", f"/models/{name}/invoke", body, headers)
        if answer[0] != 404:
            return answer
        wanted = {"model_name": name, "url": f"{self.store}/{target}/model"}
        kind = {"content-type": "application/json"}
        loaded = self._ask("POST", "/models", json.dumps(wanted).encode(), kind)
        if loaded[0] != 200:
            return loaded
        return self._ask("POST", f"/models/{name}/invoke", body, headers)

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        result = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return result

    def log_message(self, *arguments: object) -> None:
        pass


def runtime(port: int, store: str = "") -> Any:
    """A real client of boto3 whose endpoint is the container at `port`."""
    Front.port, Front.store = port, store
    server = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return boto3.client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        config=Config(retries={"max_attempts": 0}),
    )


def refusal(client: Any, invoke: Callable[[], Any]) -> tuple[int, str]:
    """What the container said to a request that it refused, as boto3 tells its caller."""
    try:
        invoke()
    except client.exceptions.ModelError as error:
        answer = error.response
        return answer["OriginalStatusCode"], json.loads(answer["OriginalMessage"])["message"]
    raise AssertionError("it was not refused")
