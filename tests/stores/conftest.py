"""A bucket for each test, and a server that says nothing."""

import socket
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from imgproxy_cache.core.location import S3Location
from tests.servers.s3 import S3Server


@pytest.fixture
def location(s3: S3Server, no_cloud: pytest.MonkeyPatch) -> S3Location:
    """A bucket of its own on the plain server, with the right credentials."""
    for name, value in s3.environ.items():
        no_cloud.setenv(name, value)
    bucket = s3.make_bucket(f"images-{uuid.uuid4().hex}")
    return S3Location(bucket, "processed", s3.endpoint, "auto")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]
