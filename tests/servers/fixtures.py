"""The servers of this folder as fixtures: started once for all tests that ask for them."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.servers import build
from tests.servers.azure import AzureServer, azure_server
from tests.servers.gcs import GcsServer, gcs_server
from tests.servers.s3 import S3Server, s3_server
from tests.servers.upstreams import FakeImgproxy, fake_imgproxy


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server that checks signatures, over plain HTTP."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The same over TLS, with a certificate by an authority of its own."""
    with s3_server(tmp_path_factory.mktemp("s3-tls"), tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """A stand-in for Google Cloud Storage."""
    with gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """A stand-in for Azure Blob Storage; skipped without Node.js, but not in CI."""
    if shutil.which("node") is None and not build.is_ci():
        pytest.skip("azurite needs Node.js, and there is none on this machine")
    with azure_server(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture
def no_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without anybody's credentials, in which nothing off loopback is asked."""
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    return monkeypatch


@pytest.fixture
async def upstream() -> AsyncIterator[FakeImgproxy]:
    """A scripted imgproxy that logs every byte."""
    async with fake_imgproxy() as fake:
        yield fake
