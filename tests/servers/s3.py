"""
versitygw: a real S3 server on loopback that checks signatures, plain or over TLS.

Used as a ``with`` block, or through the fixtures of ``fixtures.py``.  Buckets are
made and read by botocore, which is not the client that the product writes with.
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

from tests.servers import build
from tests.servers.process import free_port, running

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
REGION = "auto"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What an independent client finds in a bucket."""

    body: bytes
    content_type: str
    cache_control: str | None
    content_disposition: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server: where it is, who may use it, and an independent look into it."""

    endpoint: str
    port: int
    ca_bundle: Path | None
    accounts: Path
    pid: int = 0

    @property
    def environ(self) -> dict[str, str]:
        """The variables with which an AWS client finds and trusts this server."""
        found = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return found | ({"AWS_CA_BUNDLE": str(self.ca_bundle)} if self.ca_bundle else {})

    def client(self) -> Any:
        """A botocore S3 client with the root account's keys."""
        return _session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            verify=str(self.ca_bundle) if self.ca_bundle else None,
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=2,
                read_timeout=10,
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def make_bucket(self, bucket: str, *, public: bool = False) -> str:
        """Creates the bucket; a public one answers anonymous GETs, as a browser sends them."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        if public:
            statement = {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": f"arn:aws:s3:::{bucket}/*",
            }
            policy = {"Version": "2012-10-17", "Statement": [statement]}
            client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        return bucket

    def names(self, bucket: str) -> list[str]:
        """The names of all objects in the bucket, at most a thousand."""
        listing = self.client().list_objects_v2(Bucket=bucket)
        return [found["Key"] for found in listing.get("Contents", [])]

    def read(self, bucket: str, name: str) -> StoredObject:
        """The object with the headers that a browser would get."""
        answer = self.client().get_object(Bucket=bucket, Key=name)
        return StoredObject(
            body=answer["Body"].read(),
            content_type=answer["ContentType"],
            cache_control=answer.get("CacheControl"),
            content_disposition=answer.get("ContentDisposition"),
            metadata=answer["Metadata"],
        )

    def admit(self, accounts: Mapping[str, str]) -> None:
        """Lets exactly these access keys (with their secrets) in, beside the root account's."""
        users = {
            key: {"access": key, "secret": secret, "role": "admin"}
            for key, secret in accounts.items()
        }
        fresh = self.accounts.with_suffix(".new")
        fresh.write_text(json.dumps({"accessAccounts": users}))
        fresh.replace(self.accounts)


@contextmanager
def s3_server(folder: Path, *, tls: bool = False) -> Iterator[S3Server]:
    """A server that keeps its objects below the (absolute) folder."""
    objects, accounts = folder / "objects", folder / "accounts"
    objects.mkdir(parents=True)
    accounts.mkdir()
    port = free_port()
    ca_bundle = _certificate(folder) if tls else None
    command = [
        str(build.versitygw()),
        *("--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION),
        *("--port", f"127.0.0.1:{port}", "--keep-alive", "--quiet"),
        *("--iam-dir", str(accounts), "--iam-cache-disable"),
        *(("--cert", str(folder / "cert.pem"), "--key", str(folder / "key.pem")) if tls else ()),
        *("posix", str(objects)),
    ]
    scheme = "https" if tls else "http"
    server = S3Server(f"{scheme}://127.0.0.1:{port}", port, ca_bundle, accounts / "users.json")
    server.admit({})
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with running(command, port=port, env=environ) as process:
        yield replace(server, pid=process.pid)


@functools.cache
def _session() -> Any:
    """One for all: each reads what S3 is anew, which takes 120 ms, and a client of it 6."""
    return botocore.session.Session()


def _certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 by an authority nobody knows; the authority's own file."""
    import trustme  # noqa: PLC0415 (half of the servers need no certificate)

    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    for position, part in enumerate(leaf.cert_chain_pems):
        part.write_to_path(folder / "cert.pem", append=position > 0)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"
