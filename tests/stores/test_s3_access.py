"""How S3 is reached: whom a certificate has to be signed by, and which address is taken."""

import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from imgproxy_cache.core.location import S3Location
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import open_store
from tests.stores.images import KEY, PICTURE
from tests.stores.reading import buffer, got
from tests.stores.scripted import OK, scripted

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\nPNG"
MOST_GREETING_BYTES = 65536


async def reads_and_writes(location: S3Location, server_tls: ssl.SSLContext) -> None:
    async with scripted(OK, ANSWER, tls=server_tls) as server:
        there = replace(location, endpoint=f"https://127.0.0.1:{server.port}")
        async with open_store(there) as store, store.reader(buffer()) as reader:
            await asyncio.to_thread(store.put, KEY, PICTURE)
            found = await got(reader)
            assert found is not None
            assert found.body == b"PNG"


async def test_a_bundle_may_have_comments_of_any_language_and_others_certificates(
    location: S3Location, no_cloud: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, other = trustme.CA(), trustme.CA()
    bundle = tmp_path / "bundle.pem"
    for authority in (other, ours):
        with bundle.open("ab") as file:
            file.write("# Főtanúsítvány\n".encode() + authority.cert_pem.bytes())
    no_cloud.setenv("AWS_CA_BUNDLE", str(bundle))
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(server_tls)
    await reads_and_writes(location, server_tls)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
async def test_an_authority_may_be_as_openssl_makes_it(
    location: S3Location, no_cloud: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    server_tls = _of_a_plain_authority(tmp_path)
    no_cloud.setenv(name, str(tmp_path / "ca.pem"))
    await reads_and_writes(location, server_tls)


async def test_who_hangs_up_on_a_greeting_may_speak_tls_tomorrow(location: S3Location) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(MOST_GREETING_BYTES)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        there = replace(location, endpoint=f"https://127.0.0.1:{port}")
        async with open_store(there) as store, store.reader(buffer()) as reader:
            for operation in (asyncio.to_thread(store.put, KEY, PICTURE), got(reader)):
                with pytest.raises(StoreError) as caught:
                    await operation
                assert caught.value.kind == "unreachable"


def _of_a_plain_authority(folder: Path) -> ssl.SSLContext:
    """As `openssl req -x509` and `openssl x509 -req` have them: nothing about key usage."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = (
        _certificate("an authority", "an authority", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, SHA256())
    )
    leaf = (
        _certificate("a server", "an authority", key)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(authority_key, SHA256())
    )
    (folder / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / "cert.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def _certificate(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
