"""Lambda functions: ``lambda://REGION/FUNCTION[?qualifier=ALIAS&profile=NAME]``.

With the credentials of `profile`, or those that boto3 finds, the function is invoked with the
event that an HTTP API would send, so that a version can be asked before anything in front of it
exists, and whoever may call. Sources: the API reference of ``Invoke``; "Create AWS Lambda proxy
integrations for HTTP APIs" (payload format 2.0).
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from modelport.core.errors import InputError, UnauthenticatedError, UnavailableError
from modelport.deploy.verify.base import TIMEOUT_SECONDS, Answer, Ask

_KEYS: Final = {"qualifier", "profile"}
_FORM: Final = "lambda://REGION/FUNCTION?qualifier=ALIAS"


class LambdaAccess:
    """See the module."""

    def open(self, url: str, timeout: float = TIMEOUT_SECONDS) -> LambdaCarrier:
        """See `modelport.deploy.verify.base.Access.open`."""
        parts = urlsplit(url)
        function = parts.path.strip("/")
        query = dict(parse_qsl(parts.query))
        if not parts.hostname or not function or "/" in function or set(query) - _KEYS:
            raise InputError(f"not a Lambda function: {url!r}", hint=_FORM)
        settings = Config(
            connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1}
        )
        try:
            session = boto3.Session(profile_name=query.get("profile"))
            client = session.client("lambda", region_name=parts.hostname, config=settings)
        except (BotoCoreError, ValueError) as error:
            raise InputError(f"boto3 cannot reach {url}: {error}") from error
        chosen = {"FunctionName": function}
        if "qualifier" in query:
            chosen["Qualifier"] = query["qualifier"]
        return LambdaCarrier(url, client, chosen)


class LambdaCarrier:
    """Sends a request as an event, and reads the answer that an API would make of it.

    Parameters
    ----------
    url : str
    client : boto3 client
    chosen : dict of str to str
        The function, and which of its versions or aliases.
    """

    def __init__(self, url: str, client: Any, chosen: dict[str, str]) -> None:
        self.url = url
        self._client = client
        self._chosen = chosen

    def send(self, ask: Ask) -> Answer:
        """See `modelport.deploy.verify.base.Carrier.send`."""
        event = json.dumps(event_of(ask, self._chosen["FunctionName"])).encode()
        start = time.perf_counter()
        try:
            said = self._client.invoke(**self._chosen, Payload=event)
            payload = said["Payload"].read()
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise UnauthenticatedError(
                f"no credentials for {self.url}: {error}", hint="aws configure, or AWS_PROFILE"
            ) from error
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
            return Answer(int(status), {}, str(error).encode(), time.perf_counter() - start)
        except BotoCoreError as error:
            raise UnavailableError(f"no answer from {self.url}: {error}") from error
        seconds = time.perf_counter() - start
        if said.get("FunctionError"):  # what a gateway answers with 502
            return Answer(502, {}, payload, seconds)
        return answer_of(payload, seconds)

    def close(self) -> None:
        """See `modelport.deploy.verify.base.Carrier.close`."""
        self._client.close()


def event_of(ask: Ask, function: str) -> dict[str, Any]:
    """The event of an HTTP API, payload format 2.0; without what belongs to the address."""
    path = urlsplit(ask.path).path
    if path.startswith(f"/{function}/"):
        path = path.removeprefix(f"/{function}")
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "lambda", **ask.headers},
        "requestContext": {
            "http": {
                "method": ask.method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
            },
            "requestId": "verify", "routeKey": "$default", "stage": "$default",
        },
        "body": base64.b64encode(ask.body).decode(),
        "isBase64Encoded": True,
    }  # fmt: skip


def answer_of(payload: bytes, seconds: float) -> Answer:
    """The HTTP answer in what the function returned."""
    try:
        said = json.loads(payload)
        body = str(said.get("body") or "")
        content = base64.b64decode(body) if said.get("isBase64Encoded") else body.encode()
        headers = {key.lower(): str(value) for key, value in (said.get("headers") or {}).items()}
        return Answer(int(said["statusCode"]), headers, content, seconds)
    except (ValueError, KeyError, AttributeError, TypeError):
        return Answer(502, {}, b"the function returned no HTTP answer: " + payload[:500], seconds)
