"""Vertex AI and Cloud Run, with the credentials that google-auth finds by itself.

Sources: ``google-auth``'s reference: access tokens for Google's own APIs; Cloud Run,
"Authenticating service-to-service" and "… developers": identity tokens, whose audience is the
service's URL where an account can choose it, and the login's own where a person is logged in.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import google.auth
import google.auth.exceptions
import google.auth.impersonated_credentials
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
                token: str = _identity_token(request, audience)
            else:
                credentials, _ = google.auth.default(scopes=[_SCOPE])
                credentials.refresh(request)  # type: ignore[no-untyped-call]
                token = str(credentials.token)
        except google.auth.exceptions.GoogleAuthError as error:
            raise UnauthenticatedError(
                f"no credentials of Google Cloud for {url}: {error}",
                hint="gcloud auth application-default login, or MODELPORT_API_KEY with a token: "
                "that of gcloud auth print-access-token, for Cloud Run of print-identity-token",
            ) from error
        return WebCarrier(url, {"authorization": f"Bearer {token}"}, timeout)


def _identity_token(request: Any, audience: str) -> str:
    """Of a key file or a machine on Google Cloud; else of who is logged in, or stood in for."""
    try:
        token: str = google.oauth2.id_token.fetch_id_token(  # type: ignore[no-untyped-call]
            request, audience
        )
        return token
    except google.auth.exceptions.DefaultCredentialsError:
        found, _ = google.auth.default()  # all that was agreed to at the login
    if isinstance(found, google.auth.impersonated_credentials.Credentials):
        found = google.auth.impersonated_credentials.IDTokenCredentials(  # type: ignore[no-untyped-call]
            found, target_audience=audience, include_email=True
        )
        found.refresh(request)
        return str(found.token)
    found.refresh(request)  # type: ignore[no-untyped-call]
    own = getattr(found, "id_token", None)
    if not own:
        raise google.auth.exceptions.DefaultCredentialsError(  # type: ignore[no-untyped-call]
            "this login has access tokens only, and Cloud Run wants an identity token"
        )
    return str(own)
