"""Where the store is: the `S3_*` names, or one URL instead."""

import re
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from imgproxy_cache.core.location import (
    AzureLocation,
    FolderLocation,
    GcsLocation,
    S3Location,
    StoreLocation,
)
from imgproxy_cache.settings.addresses import LARGEST_PORT
from imgproxy_cache.settings.environment import Environment

_BUCKET_NAMES = ("S3_BUCKET", "BUCKET_NAME")
_ENDPOINT_NAMES = ("S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_AZURE_ACCOUNT_NAMES = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT")
_TIGRIS = "https://fly.storage.tigris.dev"
_STORE_URL = "CACHE_STORE_URL"
_STORE_URLS = "s3://bucket/folder, gs://bucket/folder, az://container/folder or file:///folder"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_ENDPOINT = re.compile(
    r"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(/[^?#@\s]*)?"
)


def read_store(env: Environment) -> StoreLocation | None:
    """Where the store is; None, with the problem noted, if that is not to be found out."""
    endpoint = _endpoint(env)
    region = (env.text("AWS_REGION") or "auto").strip()
    bucket = env.first_of(_BUCKET_NAMES)
    if env.text(_STORE_URL) is None:
        return _store_of_bucket(env, bucket, endpoint, region)
    if bucket is not None:
        env.reject(_STORE_URL, f"this or {bucket[0]}, not both")
        return None
    if env.text("S3_FOLDER") is not None:
        env.reject("S3_FOLDER", f"none beside {_STORE_URL}, which names the folder itself")
        return None
    return _store_of_url(env, endpoint, region)


def _endpoint(env: Environment) -> str:
    found = env.first_of(_ENDPOINT_NAMES)
    if found is None:
        return _TIGRIS
    name, value = found
    endpoint = _ENDPOINT.fullmatch(value)
    if endpoint is None or int(endpoint[3] or 0) > LARGEST_PORT:
        env.reject(name, "https://host or http://host, with a port if need be")
    return value.rstrip("/")


def _store_of_bucket(
    env: Environment, bucket: tuple[str, str] | None, endpoint: str, region: str
) -> S3Location | None:
    folder = _folder(env.text("S3_FOLDER") or "")
    if folder is None:
        env.reject("S3_FOLDER", "a folder such as processed")
    if bucket is None:
        env.require("S3_BUCKET", "a bucket name")
        return None
    name, value = bucket
    if not _BUCKET.fullmatch(value):
        env.reject(name, "a bucket name")
        return None
    return None if folder is None else S3Location(value, folder, endpoint, region)


def _store_of_url(env: Environment, endpoint: str, region: str) -> StoreLocation | None:
    location = _location(env.text(_STORE_URL) or "", endpoint, region)
    if location is None:
        env.reject(_STORE_URL, _STORE_URLS)
    if isinstance(location, AzureLocation):
        account = (env.text(name) for name in _AZURE_ACCOUNT_NAMES)
        return replace(location, account=" ".join(filter(None, account)))
    return location


def _location(url: str, endpoint: str, region: str) -> StoreLocation | None:
    scheme, _, rest = url.strip().partition("://")
    if scheme == "file":
        return _folder_location(url.strip())
    bucket, _, path = rest.partition("/")
    folder = _folder(path)
    if folder is None or not _BUCKET.fullmatch(bucket) or set("?#@") & set(path):
        return None
    match scheme:
        case "s3":
            return S3Location(bucket, folder, endpoint, region)
        case "gs":
            return GcsLocation(bucket, folder)
        case "az":
            return AzureLocation(bucket, folder)
        case _:
            return None


def _folder_location(url: str) -> FolderLocation | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    path = PurePosixPath(unquote(parts.path, errors="surrogateescape"))
    is_usable = (
        path.is_absolute() and path.name and ".." not in path.parts and str(path).isprintable()
    )
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not is_usable:
        return None
    return FolderLocation(str(path))


def _folder(value: str) -> str | None:
    """A folder without slashes at its ends; None for what is no folder in every store."""
    folder = value.strip().strip("/")
    segments = folder.split("/") if folder else []
    is_plain = folder.isprintable() and not {"", ".", ".."} & set(segments)
    return folder if is_plain else None
