"""Where the store is, by every name that it may have."""

import pytest

from imgproxy_cache.core.location import (
    AzureLocation,
    FolderLocation,
    GcsLocation,
    S3Location,
    StoreLocation,
)
from imgproxy_cache.errors import SettingsError
from imgproxy_cache.settings import Settings

BUCKET = {"S3_BUCKET": "images"}
TIGRIS = "https://fly.storage.tigris.dev"


@pytest.mark.parametrize(
    ("environ", "store", "printed"),
    [
        pytest.param(
            {"S3_BUCKET": "images", "S3_FOLDER": "processed"},
            S3Location("images", "processed", TIGRIS, "auto"),
            "s3://images/processed",
        ),
        pytest.param(
            {"S3_BUCKET": "images", "S3_FOLDER": "processed/"},
            S3Location("images", "processed", TIGRIS, "auto"),
            "s3://images/processed",
        ),
        pytest.param(
            {"S3_BUCKET": "images", "S3_FOLDER": "/a/b/"},
            S3Location("images", "a/b", TIGRIS, "auto"),
            "s3://images/a/b",
        ),
        pytest.param(
            {"BUCKET_NAME": "images", "S3_FOLDER": "/"},
            S3Location("images", "", TIGRIS, "auto"),
            "s3://images",
        ),
        pytest.param(
            {"BUCKET_NAME": "theirs", "S3_BUCKET": "images", "AWS_REGION": "eu-west-1"},
            S3Location("images", "", TIGRIS, "eu-west-1"),
            "s3://images",
        ),
        pytest.param(
            BUCKET | {"AWS_ENDPOINT_URL": "https://c.example/"},
            S3Location("images", "", "https://c.example", "auto"),
            "s3://images",
        ),
        pytest.param(
            BUCKET | {"AWS_ENDPOINT_URL": "https://c", "AWS_ENDPOINT_URL_S3": "http://[::1]:9000"},
            S3Location("images", "", "http://[::1]:9000", "auto"),
            "s3://images",
        ),
        pytest.param(
            BUCKET | {"AWS_ENDPOINT_URL_S3": "https://b", "S3_ENDPOINT": "https://a/storage/v1/s3"},
            S3Location("images", "", "https://a/storage/v1/s3", "auto"),
            "s3://images",
        ),
        pytest.param(
            {"CACHE_STORE_URL": "s3://images/a/b/", "S3_ENDPOINT": "https://a"},
            S3Location("images", "a/b", "https://a", "auto"),
            "s3://images/a/b",
        ),
        pytest.param({"CACHE_STORE_URL": "gs://images"}, GcsLocation("images", ""), "gs://images"),
        pytest.param(
            {"CACHE_STORE_URL": "az://images/a"}, AzureLocation("images", "a"), "az://images/a"
        ),
        pytest.param(
            {"CACHE_STORE_URL": "az://images/a", "AZURE_STORAGE_ACCOUNT_NAME": "mine"},
            AzureLocation("images", "a", "mine"),
            "az://images/a",
        ),
        pytest.param(
            {"CACHE_STORE_URL": "file:///var/cache/a%20b/"},
            FolderLocation("/var/cache/a b"),
            "file:///var/cache/a b",
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if type(value) is dict else "",
)
def test_store_is_where_the_environment_says(
    environ: dict[str, str], store: StoreLocation, printed: str
) -> None:
    assert Settings.from_environ(environ).store == store
    assert str(store) == printed


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"S3_BUCKET": "  "}, "S3_BUCKET is not set: expected a bucket name"),
        ({"S3_BUCKET": "s3://a"}, "S3_BUCKET='s3://a': expected a bucket name"),
        ({"BUCKET_NAME": "a/b"}, "BUCKET_NAME='a/b': expected a bucket name"),
        (
            BUCKET | {"S3_FOLDER": "a/../b"},
            "S3_FOLDER='a/../b': expected a folder such as processed",
        ),
        (
            BUCKET | {"CACHE_STORE_URL": "file:///d"},
            "CACHE_STORE_URL='file:///d': expected this or S3_BUCKET, not both",
        ),
        (
            {"BUCKET_NAME": "images", "CACHE_STORE_URL": "gs://images"},
            "CACHE_STORE_URL='gs://images': expected this or BUCKET_NAME, not both",
        ),
        (
            {"S3_FOLDER": "a", "CACHE_STORE_URL": "s3://images"},
            "S3_FOLDER='a': expected none beside CACHE_STORE_URL, which names the folder itself",
        ),
        (
            BUCKET | {"AWS_ENDPOINT_URL": "localhost:9000"},
            "AWS_ENDPOINT_URL='localhost:9000': expected https://host or http://host,"
            " with a port if need be",
        ),
        *[
            (
                {"CACHE_STORE_URL": url},
                f"CACHE_STORE_URL={printed!r}: expected s3://bucket/folder, gs://bucket/folder,"
                " az://container/folder or file:///folder",
            )
            for url, printed in [
                ("images", "images"),
                ("ftp://images", "ftp://images"),
                ("s3://", "s3://"),
                ("s3://k3y:s4lt@images/a", "s3://***@images/a"),
                ("s3://images/a?token=s3cret", "s3://images/a?***"),
                ("file://host/a", "file://host/a"),
                ("file:a", "file:a"),
                ("file:///", "file:///"),
                ("file:///a/%2e%2e/b", "file:///a/%2e%2e/b"),
                ("file:///a/%ff", "file:///a/%ff"),
                ("file:///a/%00", "file:///a/%00"),
                ("file://[/a", "file://[/a"),
            ]
        ],
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if type(value) is dict else "",
)
def test_store_that_cannot_be_is_refused(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)
    assert caught.value.problems == (problem,)
