"""SageMaker endpoints: ``sagemaker://REGION/ENDPOINT[?model=FILE.tar.gz&variant=NAME&profile=…]``.

Requests are signed and sent by boto3's ``sagemaker-runtime``, with the credentials of `profile` or
those that boto3 finds. Source: the API reference of ``InvokeEndpoint``.
"""

from __future__ import annotations

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

_QUERY: Final = {"model": "TargetModel", "variant": "TargetVariant"}

#: What the runtime calls a refusal → the status that HTTP would have.
_STATUSES: Final = {
    "ModelError": 424,
    "ModelNotReadyException": 429,
    "ServiceUnavailable": 503,
    "ThrottlingException": 429,
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "UnrecognizedClientException": 403,
}


class SageMakerAccess:
    """See the module."""

    def open(self, url: str, timeout: float = TIMEOUT_SECONDS) -> SageMakerCarrier:
        """See `modelport.deploy.verify.base.Access.open`."""
        parts = urlsplit(url)
        endpoint = parts.path.strip("/")
        if not parts.hostname or not endpoint or "/" in endpoint:
            raise InputError(
                f"not a SageMaker endpoint: {url!r}", hint="sagemaker://REGION/ENDPOINT"
            )
        chosen, profile = {"EndpointName": endpoint}, ""
        for key, value in parse_qsl(parts.query):
            if key == "profile":
                profile = value
                continue
            if key not in _QUERY:
                raise InputError(f"not a choice of an endpoint: {key!r}", where=url, hint="model=…")
            chosen[_QUERY[key]] = value
        settings = Config(
            connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1}
        )
        try:
            client = boto3.Session(profile_name=profile or None).client(
                "sagemaker-runtime", region_name=parts.hostname, config=settings
            )
        except (BotoCoreError, ValueError) as error:
            raise InputError(f"boto3 cannot reach {url}: {error}") from error
        return SageMakerCarrier(url, client, chosen)


class SageMakerCarrier:
    """Sends what a request to ``/invocations`` would, without its path.

    Parameters
    ----------
    url : str
    client : boto3 client
    chosen : dict of str to str
        The endpoint, and which of its models or variants.
    """

    def __init__(self, url: str, client: Any, chosen: dict[str, str]) -> None:
        self.url = url
        self._client = client
        self._chosen = chosen

    def send(self, ask: Ask) -> Answer:
        """See `modelport.deploy.verify.base.Carrier.send`."""
        start = time.perf_counter()
        try:
            answer = self._client.invoke_endpoint(
                **self._chosen,
                Body=ask.body,
                ContentType=ask.headers.get("content-type", "application/json"),
                Accept=ask.headers.get("accept", "application/json"),
            )
            body = answer["Body"].read()
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise UnauthenticatedError(
                f"no credentials for {self.url}: {error}", hint="aws configure, or AWS_PROFILE"
            ) from error
        except ClientError as error:
            return _refused(error, time.perf_counter() - start)
        except BotoCoreError as error:
            raise UnavailableError(f"no answer from {self.url}: {error}") from error
        headers = {"content-type": str(answer.get("ContentType", ""))}
        return Answer(200, headers, body, time.perf_counter() - start)

    def close(self) -> None:
        """See `modelport.deploy.verify.base.Carrier.close`."""
        self._client.close()


def _refused(error: ClientError, seconds: float) -> Answer:
    """What SageMaker or the container said; of a container also its own status."""
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    status = _STATUSES.get(code) or int(
        error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    )
    text = str(error.response.get("OriginalMessage") or said.get("Message") or error)
    original = error.response.get("OriginalStatusCode")
    told = f"{code}: {text}" + (f" (the container answered {original})" if original else "")
    return Answer(status, {}, told.encode(), seconds)
