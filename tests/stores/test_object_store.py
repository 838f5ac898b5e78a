"""S3 as operators meet it: what is in the bucket, and what they read when it does not work."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest

from imgproxy_cache.core.key import Key
from imgproxy_cache.core.location import AzureLocation, GcsLocation, S3Location
from imgproxy_cache.errors import StoreError
from imgproxy_cache.stores import Store, open_store
from imgproxy_cache.stores.object_store import open_object_store
from tests.faults.front import Fault, faulty_front
from tests.servers.azure import AzureServer
from tests.servers.process import free_port
from tests.servers.s3 import S3Server, StoredObject
from tests.stores.images import KEY, PICTURE, picture
from tests.stores.reading import buffer
from tests.stores.reading import got as read


async def failure_of(location: S3Location) -> StoreError:
    """The one failure that putting, getting and checking all report, and a reader as well."""
    async with open_store(location) as store, store.reader(buffer()) as reader:
        put = await failure_of_store(store)
        with pytest.raises(StoreError) as caught:
            await read(reader)
    assert (caught.value.kind, caught.value.cause, caught.value.hint) == (
        put.kind,
        put.cause,
        put.hint,
    )
    assert caught.value.operation == put.operation.replace("put", "get")
    return put


async def failure_of_store(store: Store) -> StoreError:
    """The one failure that putting, getting and checking all report."""
    with pytest.raises(StoreError) as put:
        await asyncio.to_thread(store.put, KEY, picture())
    with pytest.raises(StoreError) as got:
        await asyncio.to_thread(store.get, KEY)
    with pytest.raises(StoreError) as checked:
        await store.check()
    assert put.value.kind == got.value.kind == checked.value.kind
    return put.value


async def test_another_client_finds_the_plain_image_with_its_fields(
    s3: S3Server, location: S3Location
) -> None:
    async with open_store(location) as store:
        await asyncio.to_thread(store.put, KEY, PICTURE)
    assert s3.names(location.bucket) == [f"processed/{KEY}"]
    assert s3.read(location.bucket, f"processed/{KEY}") == StoredObject(
        body=PICTURE.body,
        content_type="image/png",
        cache_control="max-age=31536000, public",
        content_disposition='inline; filename="chelsea.png"',
        metadata={
            "path-sha256": PICTURE.path_sha256,
            "content-sha256": PICTURE.content_sha256,
            "stored-at": "2026-02-03T04:05:06Z",
        },
    )


async def test_without_a_folder_the_key_alone_is_the_name(
    s3: S3Server, location: S3Location
) -> None:
    async with open_store(replace(location, folder="")) as store:
        await asyncio.to_thread(store.put, KEY, PICTURE)
        assert await asyncio.to_thread(store.get, KEY) == PICTURE
        await store.check()
    assert s3.names(location.bucket) == [KEY]


async def test_an_object_of_another_program_is_an_image_without_hashes(
    s3: S3Server, location: S3Location
) -> None:
    s3.client().put_object(
        Bucket=location.bucket, Key=f"processed/{KEY}", Body=b"theirs", ContentType="image/webp"
    )
    async with open_store(location) as store:
        found = await asyncio.to_thread(store.get, KEY)
    assert found == PICTURE._replace(
        body=b"theirs",
        content_type="image/webp",
        cache_control=None,
        content_disposition=None,
        path_sha256="",
        content_sha256="",
        stored_at="",
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            'inline; filename="東.jpg"'.encode().decode("latin-1"),
            "inline; filename*=UTF-8''%E6%9D%B1.jpg",
            id="UTF-8 that was read as Latin-1",
        ),
        pytest.param(
            'attachment; filename="caf\xe9 %22x%22.jpg"',
            "attachment; filename*=UTF-8''caf%C3%A9%20%22x%22.jpg",
            id="Latin-1, with imgproxy's quotes",
        ),
        pytest.param("inline; name=\xe9", "inline", id="unknown form"),
        pytest.param(
            f'inline; filename="{"é" * 127}"',
            f"inline; filename*=UTF-8''{'%C3%A9' * 127}",
            id="the longest that a file can have",
        ),
        pytest.param(
            f'attachment; filename="{"a" * 5000}.jpg"', "attachment", id="longer than any file's"
        ),
        pytest.param(
            f'inline; filename="{"é" * 5000}.jpg"', "inline", id="longer, and beyond ASCII"
        ),
    ],
)
async def test_a_name_is_stored_as_stores_can_keep_it(
    s3: S3Server, location: S3Location, value: str, expected: str
) -> None:
    async with open_store(location) as store:
        await asyncio.to_thread(store.put, KEY, picture(content_disposition=value))
    found = s3.read(location.bucket, f"processed/{KEY}")
    assert found.content_disposition == expected


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        pytest.param("a\r\nX-Injected: 1", "what a header cannot", id="two lines"),
        pytest.param("caf\xe9", "what a header cannot", id="beyond ASCII"),
        pytest.param("a\0", "what a header cannot", id="NUL"),
        pytest.param(
            "max-age=9000, x=" + "y" * 2000, "its fields have 2203 characters", id="too long"
        ),
    ],
)
async def test_a_value_that_no_object_can_have_is_refused_without_blaming_the_store(
    location: S3Location, value: str, cause: str
) -> None:
    async with open_store(location) as store:
        with pytest.raises(StoreError, match=cause) as caught:
            await asyncio.to_thread(store.put, KEY, picture(cache_control=value))
        assert caught.value.kind == "fields"
        assert await asyncio.to_thread(store.get, KEY) is None


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
async def test_only_the_location_says_where_the_bucket_is(
    location: S3Location, no_cloud: pytest.MonkeyPatch, name: str
) -> None:
    no_cloud.setenv(name, f"http://127.0.0.1:{free_port()}")
    no_cloud.setenv("AWS_SKIP_SIGNATURE", "true")
    no_cloud.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    no_cloud.setenv("AWS_BUCKET", "another-bucket")
    async with open_store(location) as store:
        await asyncio.to_thread(store.put, KEY, PICTURE)
        assert await asyncio.to_thread(store.get, KEY) == PICTURE


@pytest.mark.parametrize(
    ("name", "kind", "cause", "hint"),
    [
        pytest.param(
            "AWS_ACCESS_KEY_ID",
            "credentials",
            "InvalidAccessKeyId: The AWS Access Key Id you provided does not exist in our records",
            "fix AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role)",
            id="wrong key",
        ),
        pytest.param(
            "AWS_SECRET_ACCESS_KEY",
            "credentials",
            "SignatureDoesNotMatch: The request signature we calculated does not match the"
            " signature you provided. Check your key and signing method",
            "fix AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role)",
            id="wrong secret",
        ),
    ],
)
async def test_wrong_keys_are_told_without_showing_them(
    location: S3Location,
    no_cloud: pytest.MonkeyPatch,
    name: str,
    kind: str,
    cause: str,
    hint: str,
) -> None:
    no_cloud.setenv(name, "wrong-and-private")
    error = await failure_of(location)
    assert str(error) == f"s3://{location.bucket}/processed: put processed/{KEY}: {cause}: {hint}"
    assert error.kind == kind


async def test_missing_credentials_fail_uploads_and_not_the_opening(
    location: S3Location, no_cloud: pytest.MonkeyPatch
) -> None:
    no_cloud.delenv("AWS_ACCESS_KEY_ID")
    no_cloud.delenv("AWS_SECRET_ACCESS_KEY")
    error = await failure_of(location)
    assert (error.kind, error.cause) == ("credentials", "no AWS credentials were found")


async def test_a_profile_that_does_not_exist_is_named(
    location: S3Location, no_cloud: pytest.MonkeyPatch
) -> None:
    no_cloud.setenv("AWS_PROFILE", "nobody")
    error = await failure_of(location)
    assert error.kind == "credentials"
    assert "nobody" in error.cause


async def test_a_missing_bucket_is_told_with_what_to_do(location: S3Location) -> None:
    error = await failure_of(replace(location, bucket="nowhere"))
    assert str(error) == (
        f"s3://nowhere/processed: put processed/{KEY}: NoSuchBucket: The specified bucket does"
        " not exist: create it or fix S3_BUCKET"
    )
    assert error.kind == "bucket"


async def test_a_refused_connection_names_the_endpoint(location: S3Location) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    error = await failure_of(replace(location, endpoint=endpoint))
    assert (error.kind, error.cause) == ("unreachable", f"{endpoint}: connection refused")
    assert error.hint == "start it or fix S3_ENDPOINT"


async def test_half_of_an_image_is_a_failure_and_no_image(
    s3: S3Server, location: S3Location
) -> None:
    async with faulty_front(s3) as front:
        there = replace(location, endpoint=f"http://127.0.0.1:{front.port}")
        async with open_store(there) as store:
            await asyncio.to_thread(store.put, KEY, picture(bytes(100_000)))
            front.fail(Fault.HALF_ANSWER)
            with pytest.raises(StoreError) as caught:
                await asyncio.to_thread(store.get, KEY)
    assert caught.value.kind == "unreachable"
    assert caught.value.cause == "connection closed in the middle of the answer"


async def test_a_host_that_does_not_exist_is_told_apart(location: S3Location) -> None:
    endpoint = "http://no-such-host.invalid"
    error = await failure_of(replace(location, endpoint=endpoint))
    assert (error.kind, error.cause) == ("unreachable", f"{endpoint}: no such host")


async def test_the_user_part_of_an_endpoint_is_never_shown(location: S3Location) -> None:
    port = free_port()
    error = await failure_of(replace(location, endpoint=f"http://someone:private@127.0.0.1:{port}"))
    assert error.cause == f"http://127.0.0.1:{port}: connection refused"


@pytest.mark.parametrize(
    ("fault", "refusal"), [(Fault.UNCONDITIONAL, 501), (Fault.UNCONDITIONAL_405, 405)]
)
async def test_a_store_without_conditional_writes_is_noticed_once_and_looked_into_instead(
    s3: S3Server, location: S3Location, fault: Fault, refusal: int
) -> None:
    other = Key("0" * 32)
    async with faulty_front(s3) as front:
        front.fail(fault)
        there = replace(location, endpoint=f"http://127.0.0.1:{front.port}")
        async with open_store(there) as store:
            created = [
                await asyncio.to_thread(store.create, key, image)
                for key, image in ((KEY, PICTURE), (KEY, picture(b"second")), (other, PICTURE))
            ]
            assert await asyncio.to_thread(store.get, KEY) == PICTURE
    assert created == [True, False, True]
    assert [(one.method, one.status) for one in front.asked[:-1]] == [
        ("PUT", refusal),
        ("HEAD", 404),
        ("PUT", 200),
        ("HEAD", 200),
        ("HEAD", 404),
        ("PUT", 200),
    ]


async def test_silence_is_a_timeout(location: S3Location, silent_port: int) -> None:
    endpoint = f"http://127.0.0.1:{silent_port}"
    there = replace(location, endpoint=endpoint)
    async with open_object_store(there, timeout_seconds=0.3, small_timeout_seconds=0.3) as store:
        error = await failure_of_store(store)
    assert (error.kind, error.cause) == ("timeout", f"{endpoint}: no answer in time")


async def test_an_unknown_authority_is_told_with_the_way_to_trust_it(
    s3_tls: S3Server, location: S3Location
) -> None:
    error = await failure_of(replace(location, endpoint=s3_tls.endpoint))
    assert error.kind == "tls"
    assert error.cause == (
        f"{s3_tls.endpoint}: its certificate is signed by an authority unknown here"
    )
    assert "AWS_CA_BUNDLE" in error.hint


async def test_tls_to_a_plain_server_is_told_apart(s3: S3Server, location: S3Location) -> None:
    endpoint = f"https://127.0.0.1:{s3.port}"
    error = await failure_of(replace(location, endpoint=endpoint))
    assert (error.kind, error.cause) == ("tls", f"{endpoint}: it does not speak TLS")


async def test_certificates_that_cannot_be_read_fail_the_opening(
    location: S3Location, no_cloud: pytest.MonkeyPatch
) -> None:
    no_cloud.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(StoreError) as caught:
        async with open_store(location):
            pass
    assert (caught.value.cause, caught.value.hint) == (
        "/nowhere/ca.pem: No such file or directory",
        "fix AWS_CA_BUNDLE",
    )


@pytest.mark.parametrize(
    ("location", "environ", "cause", "hint"),
    [
        pytest.param(
            AzureLocation("images", ""),
            {},
            "Account must be specified",
            "fix AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            id="no account",
        ),
        pytest.param(
            AzureLocation("images", ""),
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "b c!"},
            "Invalid Access Key: Invalid symbol 32, offset 1",
            "fix AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            id="key that is no base64",
        ),
        pytest.param(
            GcsLocation("images", ""),
            {"GOOGLE_SERVICE_ACCOUNT": "/nowhere/key.json"},
            "Unable to open service account file from /nowhere/key.json: "
            "No such file or directory (os error 2)",
            "fix GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
            id="key file that is missing",
        ),
    ],
)
async def test_account_that_cannot_be_read_fails_the_opening_and_names_its_variables(
    no_cloud: pytest.MonkeyPatch,
    location: AzureLocation | GcsLocation,
    environ: dict[str, str],
    cause: str,
    hint: str,
) -> None:
    for name, value in environ.items():
        no_cloud.setenv(name, value)
    with pytest.raises(StoreError) as caught:
        async with open_store(location):
            pass
    said = caught.value
    assert (said.operation, said.kind, said.cause, said.hint) == (
        "open",
        "credentials",
        cause,
        hint,
    )


async def test_wrong_azure_keys_name_azures_variables(
    azure: AzureServer, no_cloud: pytest.MonkeyPatch
) -> None:
    for name, value in azure.environ.items():
        no_cloud.setenv(name, value)
    no_cloud.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    async with open_store(AzureLocation("images", "")) as store:
        with pytest.raises(StoreError) as caught:
            await store.check()
    assert caught.value.kind in ("credentials", "denied")


def test_a_folder_store_does_not_load_the_object_stores() -> None:
    program = (
        "import sys\n"
        "from imgproxy_cache.core.location import FolderLocation\n"
        "from imgproxy_cache.stores import open_store\n"
        "open_store(FolderLocation('/nowhere'))\n"
        "print(sorted({'obstore', 'aioboto3', 'botocore'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
