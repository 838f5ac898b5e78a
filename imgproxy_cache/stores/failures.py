"""What an object store said when it failed, told to an operator: cause, hint, kind."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from http.client import responses

from obstore.exceptions import NotSupportedError, UnauthenticatedError

from imgproxy_cache.core.location import AzureLocation, GcsLocation, S3Location
from imgproxy_cache.errors import StoreError, UpstreamError, UpstreamTimedOut

ObjectLocation = S3Location | GcsLocation | AzureLocation

_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<\n]{1,300})")
_STATUS = re.compile(r"non-2xx status code: (\d{3}[^:\n]{0,40})")
_ENDPOINT = re.compile(r"\b(https?://)(?:[^/\s@]*@)?([^/\s]+)")


@dataclass(frozen=True, slots=True)
class _Names:
    """The settings that an operator of one kind of store has to look at."""

    bucket: str
    credentials: str
    endpoint: str


_S3 = _Names(
    bucket="S3_BUCKET",
    credentials="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role)",
    endpoint="S3_ENDPOINT",
)
_GCS = _Names(
    bucket="CACHE_STORE_URL",
    credentials="GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
    endpoint="GOOGLE_BASE_URL",
)
_AZURE = _Names(
    bucket="CACHE_STORE_URL",
    credentials="AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    endpoint="AZURE_STORAGE_ENDPOINT",
)

# The codes of S3, of GCS' XML dialect (the same words) and of Azure, by what they mean.
_KIND_BY_CODE = {
    "NoSuchBucket": "bucket",
    "ContainerNotFound": "bucket",
    "ContainerBeingDeleted": "bucket",
    "InvalidBucketName": "bucket",
    "InvalidAccessKeyId": "credentials",
    "SignatureDoesNotMatch": "credentials",
    "AuthenticationFailed": "credentials",
    "InvalidAuthenticationInfo": "credentials",
    "InvalidSecurity": "credentials",
    "InvalidToken": "credentials",
    "ExpiredToken": "credentials",
    "TokenRefreshRequired": "credentials",
    "AccessDenied": "denied",
    "AccountProblem": "denied",
    "AllAccessDisabled": "denied",
    "AuthorizationFailure": "denied",
    "AuthorizationPermissionMismatch": "denied",
    "RequestTimeTooSkewed": "clock",
    "AuthorizationHeaderMalformed": "region",
    "PermanentRedirect": "region",
    "TemporaryRedirect": "region",
    "IllegalLocationConstraintException": "region",
    "EntityTooLarge": "too-large",
    "RequestBodyTooLarge": "too-large",
    "InternalError": "busy",
    "SlowDown": "busy",
    "ServiceUnavailable": "busy",
    "TooManyRequests": "busy",
    "ServerBusy": "busy",
}

_MISSING_KEY_CODES = {"NoSuchKey", "BlobNotFound"}

# Fragments of the debug text of Rust's errors, the only place where a transport says what broke.
_TRANSPORT = (
    ("kind: Timeout", "timeout", "no answer in time"),
    ("UnknownIssuer", "tls", "its certificate is signed by an authority unknown here"),
    ("InvalidCertificate(", "tls", "its certificate is not valid for this endpoint"),
    ("InvalidMessage(", "tls", "it does not speak TLS"),
    ("ConnectionRefused", "unreachable", "connection refused"),
    ("dns error", "unreachable", "no such host"),
    ("kind: Connect", "unreachable", "cannot connect"),
    ("IncompleteMessage", "unreachable", "connection closed before the answer"),
    ("IncompleteBody", "unreachable", "connection closed in the middle of the answer"),
    ("ConnectionReset", "unreachable", "connection reset"),
)

# Of OpenSSL: X509_V_ERR_*.
_UNKNOWN_ISSUER = {2, 18, 19, 20, 21}


def store_error(exc: BaseException, operation: str, location: ObjectLocation) -> StoreError:
    """What an exception out of obstore means for the operator of this store."""
    kind, cause = _kind_and_cause(exc, str(exc))
    return _store_error(kind, cause, operation, location)


def error_of_opening(exc: Exception, location: ObjectLocation) -> StoreError:
    """
    What it means that obstore makes no client.

    Nothing is dialled by then: of GCS and Azure it has looked at account and keys alone.
    """
    if isinstance(location, S3Location):
        return store_error(exc, "open", location)
    cause = _first_line(str(exc)).rpartition(" error: ")[2].rstrip(".")
    return _store_error("credentials", cause, "open", location)


def error_of_answer(status: int, body: bytes, operation: str, location: S3Location) -> StoreError:
    """What an answer of S3 means that is none to what was asked."""
    said = _kind_and_cause_by_code(body.decode("utf-8", "replace"))
    if said is None and status == 404:
        said = "bucket", "no such bucket or container"
    if said is None:
        answered = f"answered {status} {responses.get(status, '')}".strip()
        said = _kind_by_status(str(status)), f"{_endpoint(location.endpoint)}{answered}"
    return _store_error(*said, operation, location)


def error_of_transport(
    error: UpstreamError | OSError, operation: str, location: S3Location
) -> StoreError:
    """What it means that there is no whole answer of S3."""
    kind, cause = _kind_and_cause_of_connection(error)
    return _store_error(kind, f"{_endpoint(location.endpoint)}{cause}", operation, location)


def is_missing_key(text: str) -> bool:
    """
    Whether it is the key that is missing, as a store says, or obstore's FileNotFoundError.

    False if it is the bucket.  An answer without a code (to a HEAD, from a lesser server) counts
    as a missing key.
    """
    code = _first(_CODE, text)
    if code is not None:
        return code in _MISSING_KEY_CODES or _KIND_BY_CODE.get(code) != "bucket"
    # Azure's batch delete: no code, but this sentence.
    return "container does not exist" not in text


def lacks_conditional_writes(exc: Exception) -> bool:
    """Whether it was `If-None-Match` that the store would not have: 501 (S3's word) or 405."""
    if isinstance(exc, NotSupportedError | NotImplementedError):
        return True
    text = str(exc)
    code, status = _first(_CODE, text), _first(_STATUS, text) or ""
    return code in ("NotImplemented", "MethodNotAllowed") or status.startswith(("501", "405"))


def _store_error(kind: str, cause: str, operation: str, location: ObjectLocation) -> StoreError:
    return StoreError(
        operation=operation,
        place=str(location),
        cause=cause,
        hint=_hint(kind, _names(location)),
        kind=kind,
    )


def _kind_and_cause(exc: BaseException, text: str) -> tuple[str, str]:
    said = _kind_and_cause_by_code(text)
    if said is not None:
        return said
    match exc:
        case FileNotFoundError():
            # The caller has asked is_missing_key, or has put: what is missing is no image.
            return "bucket", "no such bucket or container"
        case TimeoutError():
            return "timeout", "no answer in time"
        case UnauthenticatedError():
            return "credentials", _last_clause(text)
        case LookupError():  # straight from our own credential provider
            return "credentials", _first_line(text)
    return _transport_kind_and_cause(exc, text)


def _kind_and_cause_by_code(text: str) -> tuple[str, str] | None:
    code = _first(_CODE, text)
    if code is None:
        return None
    message = (_first(_MESSAGE, text) or "").strip().rstrip(".")
    return _KIND_BY_CODE.get(code, "other"), f"{code}: {message}" if message else code


def _transport_kind_and_cause(exc: BaseException, text: str) -> tuple[str, str]:
    for fragment, kind, cause in _TRANSPORT:
        if fragment in text:
            return kind, f"{_endpoint(text)}{cause}"
    status = _first(_STATUS, text)
    if status is not None:
        return _kind_by_status(status[:3]), f"{_endpoint(text)}answered {status.strip()}"
    return "other", f"{type(exc).__name__}: {_first_line(text)}"


def _kind_and_cause_of_connection(error: UpstreamError | OSError) -> tuple[str, str]:
    """In the words that :data:`_TRANSPORT` has for obstore's."""
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLError):
        return _kind_and_cause_of_tls(cause)
    if isinstance(cause, socket.gaierror):
        return "unreachable", "no such host"
    if isinstance(cause, ConnectionRefusedError):
        return "unreachable", "connection refused"
    if isinstance(cause, UpstreamTimedOut | TimeoutError):
        return "timeout", "no answer in time"
    if isinstance(cause, OSError):
        return "unreachable", f"cannot connect: {cause.strerror or error}"
    return "unreachable", f"it {error}"


def _kind_and_cause_of_tls(exc: ssl.SSLError) -> tuple[str, str]:
    if isinstance(exc, ssl.SSLEOFError):
        return "unreachable", "connection closed before the answer"
    if not isinstance(exc, ssl.SSLCertVerificationError):
        return "tls", "it does not speak TLS"
    if exc.verify_code in _UNKNOWN_ISSUER:
        return "tls", "its certificate is signed by an authority unknown here"
    return "tls", "its certificate is not valid for this endpoint"


def _kind_by_status(status: str) -> str:
    if status in ("401", "403"):
        return "denied"
    if status.startswith("3"):
        return "region"
    return "busy" if status == "429" or status.startswith("5") else "other"


def _hint(kind: str, names: _Names) -> str:
    return {
        "bucket": f"create it or fix {names.bucket}",
        "credentials": f"fix {names.credentials}",
        "denied": "allow these credentials to get, put, delete and list objects here",
        "clock": "set the clock of this machine",
        "region": f"fix AWS_REGION or {names.endpoint}",
        "too-large": "lower CACHE_MAX_OBJECT_BYTES to what the store takes",
        "busy": "lower CACHE_UPLOAD_CONCURRENCY if this goes on",
        "timeout": f"look at the network and at {names.endpoint}",
        "unreachable": f"start it or fix {names.endpoint}",
        "tls": f"set AWS_CA_BUNDLE to its authority's certificates, or fix {names.endpoint}",
    }.get(kind, "")


def _names(location: ObjectLocation) -> _Names:
    match location:
        case S3Location():
            return _S3
        case GcsLocation():
            return _GCS
        case AzureLocation():
            return _AZURE


def _endpoint(text: str) -> str:
    """Scheme and host of the request that failed; never the user part of a URL."""
    found = _ENDPOINT.search(text)
    return f"{found[1]}{found[2]}: " if found else ""


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:300]


def _last_clause(text: str) -> str:
    """What our own credential provider said, without obstore's words around it."""
    return _first_line(text).rpartition("provider: ")[2].removeprefix("LookupError: ")
