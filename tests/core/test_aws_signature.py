"""Requests for S3, beside those that botocore signs."""

from datetime import UTC, datetime
from hashlib import sha256

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from imgproxy_cache.core.aws_signature import RequestSigner, object_path
from imgproxy_cache.core.headers import Headers

NOW = 1_772_683_506
HOST = "s3.example:9000"
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
KEY = b"c9009a400f110797b2710ce2a5bd60a4"


def signer(secret: str = "private", token: str | None = None) -> RequestSigner:
    return RequestSigner(
        host=HOST, region="auto", access_key_id="AKID", secret_access_key=secret, token=token
    )


def read(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The request line, and the fields."""
    line, *lines = head.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines[:-2])]
    assert len({name for name, _ in fields}) == len(fields)
    return line, dict(fields)


def signed_by_botocore(
    path: bytes,
    now: int,
    *,
    secret: str = "private",
    token: str | None = None,
    method: str = "GET",
    body_sha256: str = EMPTY_SHA256,
    more: Headers | None = None,
) -> bytes:
    auth = S3SigV4Auth(Credentials("AKID", secret, token), "s3", "auto")
    request = AWSRequest(method, f"http://{HOST}{path.decode()}")
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    request.context["timestamp"] = stamp
    request.headers["Host"] = HOST
    request.headers["X-Amz-Date"] = stamp
    request.headers["X-Amz-Content-SHA256"] = body_sha256
    if token is not None:
        request.headers["X-Amz-Security-Token"] = token
    for name, value in more or ():
        request.headers[name.decode()] = value.decode()
    names = auth.signed_headers(auth.headers_to_sign(request))
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    signature = auth.signature(to_sign, request)
    return (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names},"
        f" Signature={signature}"
    ).encode()


@given(
    folder=st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=20),
    now=st.integers(0, 4_000_000_000),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    token=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
)
def test_requests_are_signed_as_botocore_signs_them(
    folder: str, now: int, secret: str, token: str | None
) -> None:
    path = object_path("", "images", folder) + KEY
    line, fields = read(signer(secret, token).get(path, now + 0.9))
    assert line == b"GET %b HTTP/1.1" % path
    assert fields[b"Authorization"] == signed_by_botocore(path, now, secret=secret, token=token)
    assert fields[b"host"] == HOST.encode()
    assert fields.get(b"x-amz-security-token") == (token.encode() if token else None)


def test_a_body_and_what_belongs_to_it_are_signed_as_well() -> None:
    path = b"/images/" + KEY
    body_sha256 = sha256(b"hello").hexdigest()
    more = [(b"x-amz-meta-z", b"1"), (b"content-type", b"image/png"), (b"x-amz-meta-a", b"2")]
    head = signer(token="of a session").put(
        path,
        NOW,
        body_sha256=body_sha256.encode(),
        signed=more,
        unsigned=b"Content-Length: 5\r\n",
    )
    line, fields = read(head)
    assert line == b"PUT %b HTTP/1.1" % path
    assert fields[b"Content-Length"] == b"5"
    assert all(fields[name] == value for name, value in more)
    assert fields[b"Authorization"] == signed_by_botocore(
        path, NOW, token="of a session", method="PUT", body_sha256=body_sha256, more=more
    )


def test_a_signer_is_good_for_days() -> None:
    one, path = signer(), b"/images/" + KEY
    for now in (NOW, NOW + 1, NOW + 86_400, NOW):
        _, fields = read(one.get(path, now))
        assert fields[b"Authorization"] == signed_by_botocore(path, now)


@pytest.mark.parametrize(
    ("prefix", "folder", "path"),
    [
        pytest.param("", "", b"/images/", id="no folder"),
        pytest.param("", "processed", b"/images/processed/", id="a folder"),
        pytest.param("", "/a/b/", b"/images/a/b/", id="two, and slashes around them"),
        pytest.param("/s3/", "a", b"/s3/images/a/", id="an endpoint with a path"),
        pytest.param("", "a b+c%/\u00e9~", b"/images/a%20b%2Bc%25/%C3%A9~/", id="odd ones"),
    ],
)
def test_the_path_of_a_folder_is_ready_for_the_wire(prefix: str, folder: str, path: bytes) -> None:
    assert object_path(prefix, "images", folder) == path
