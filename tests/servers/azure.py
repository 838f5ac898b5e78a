"""azurite: stands in for Azure Blob Storage on loopback, signature checks included."""

import base64
import hmac
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path

from tests.servers import build
from tests.servers.process import free_port, running

# The account that every copy of azurite has: published, and no secret.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass(frozen=True, slots=True)
class AzureServer:
    """A running server, and the variables with which a client finds it."""

    port: int

    @property
    def endpoint(self) -> str:
        """The account's address: azurite has the account in the path."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def environ(self) -> dict[str, str]:
        """What Azure's own tools read, for this server."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }

    def make_container(self, container: str) -> str:
        """Creates the container, signed by hand (Shared Key, 2021-08-06)."""
        fields = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        to_sign = "\n".join(
            ["PUT", *[""] * 11]
            + [f"{name}:{value}" for name, value in sorted(fields.items())]
            + [f"/{ACCOUNT}/{ACCOUNT}/{container}", "restype:container"]
        )
        secret = base64.b64decode(ACCOUNT_KEY)
        signature = base64.b64encode(hmac.digest(secret, to_sign.encode(), sha256)).decode()
        request = urllib.request.Request(
            f"{self.endpoint}/{container}?restype=container",
            headers=fields | {"Authorization": f"SharedKey {ACCOUNT}:{signature}"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=5):
            return container


@contextmanager
def azure_server(folder: Path) -> Iterator[AzureServer]:
    """A server that keeps its objects in memory and reports nothing to anybody."""
    port = free_port()
    command = [
        *build.azurite(),
        *("--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck"),
    ]
    with running(command, port=port, env={"PATH": os.environ["PATH"], "HOME": str(folder)}):
        yield AzureServer(port)
