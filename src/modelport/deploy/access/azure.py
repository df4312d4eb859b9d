"""Azure ML endpoints with ``auth_mode: aad_token``, with what azure-identity finds.

Source: Azure ML, "Authenticate clients for online endpoints": the audience is
``https://ml.azure.com``. Endpoints with keys need none of this: the key is `MODELPORT_API_KEY`.
"""

from __future__ import annotations

from typing import Final

from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError, DefaultAzureCredential

from modelport.core.errors import UnauthenticatedError
from modelport.deploy.verify.base import TIMEOUT_SECONDS
from modelport.deploy.verify.web import WebCarrier

_SCOPE: Final = "https://ml.azure.com/.default"


class AzureAccess:
    """See the module."""

    def open(self, url: str, timeout: float = TIMEOUT_SECONDS) -> WebCarrier:
        """See `modelport.deploy.verify.base.Access.open`."""
        try:
            with DefaultAzureCredential() as credential:
                token = credential.get_token(_SCOPE).token
        except (ClientAuthenticationError, CredentialUnavailableError) as error:
            raise UnauthenticatedError(
                f"no credentials of Azure for {url}: {str(error).splitlines()[0]}",
                hint="az login, or MODELPORT_API_KEY with the endpoint's key",
            ) from error
        return WebCarrier(url, {"authorization": f"Bearer {token}"}, timeout)
