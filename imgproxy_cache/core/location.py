"""Where the store is. `str()` of each is what may be printed: no credentials, ever."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket behind an S3 endpoint; `folder` has no slash at its ends and may be empty."""

    bucket: str
    folder: str
    endpoint: str
    region: str

    def __str__(self) -> str:
        return _place("s3", self.bucket, self.folder)


@dataclass(frozen=True, slots=True)
class GcsLocation:
    """A bucket of Google Cloud Storage."""

    bucket: str
    folder: str

    def __str__(self) -> str:
        return _place("gs", self.bucket, self.folder)


@dataclass(frozen=True, slots=True)
class AzureLocation:
    """
    A container of Azure Blob Storage.

    `account` tells whose it is: a name, an endpoint or both; empty where only credentials know.
    """

    container: str
    folder: str
    account: str = ""

    def __str__(self) -> str:
        return _place("az", self.container, self.folder)


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """A folder of this machine, by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"file://{self.path}"


StoreLocation = S3Location | GcsLocation | AzureLocation | FolderLocation


def whereabouts(location: StoreLocation) -> str:
    """What tells a store from every other: two endpoints, or accounts, may have the same names."""
    match location:
        case S3Location():
            return f"{location} at {location.endpoint}"
        case AzureLocation():
            return f"{location} of {location.account}"
        case _:
            return str(location)


def _place(scheme: str, bucket: str, folder: str) -> str:
    return f"{scheme}://{bucket}/{folder}" if folder else f"{scheme}://{bucket}"
