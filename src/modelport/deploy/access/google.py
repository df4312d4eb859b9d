"""Vertex AI and Cloud Run, with the credentials that ``gcloud auth application-default`` left.

Source: ``google-auth``'s reference: access tokens for Google's own APIs, identity tokens whose
audience is the service's URL for Cloud Run.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import google.auth
import google.auth.exceptions
import google.auth.transport.requests
import google.oauth2.id_token

from modelport.core.errors import UnauthenticatedError
from modelport.deploy.verify.base import TIMEOUT_SECONDS
from modelport.deploy.verify.web import WebCarrier

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class GoogleAccess:
    """See the module."""

    def open(self, url: str, timeout: float = TIMEOUT_SECONDS) -> WebCarrier:
        """See `modelport.deploy.verify.base.Access.open`."""
        parts = urlsplit(url)
        request = google.auth.transport.requests.Request()
        try:
            if (parts.hostname or "").endswith(".run.app"):
                # A tagged revision's host is TAG---HOST; the audience is the service's own.
                audience = f"https://{parts.netloc.rpartition('---')[2]}"
                token = google.oauth2.id_token.fetch_id_token(  # type: ignore[no-untyped-call]
                    request, audience
                )
            else:
                credentials, _ = google.auth.default(scopes=[_SCOPE])
                credentials.refresh(request)  # type: ignore[no-untyped-call]
                token = credentials.token
        except google.auth.exceptions.GoogleAuthError as error:
            raise UnauthenticatedError(
                f"no credentials of Google Cloud for {url}: {error}",
                hint="gcloud auth application-default login, or MODELPORT_API_KEY with a token",
            ) from error
        return WebCarrier(url, {"authorization": f"Bearer {token}"}, timeout)
