"""From an ASGI scope to a request: its path, its resource, its fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.types import Scope

from imgproxy_cache.core.imgproxy_path import ImgproxyPath, read_path
from imgproxy_cache.core.policy import StorageRules
from imgproxy_cache.core.request import UNREAD, Request, Unread
from imgproxy_cache.core.request_fields import RequestFields, read_request_fields
from imgproxy_cache.read_through import ReadThrough


class LastFields(Protocol):
    """Something that keeps the fields of a client's last request, for the next."""

    fields: RequestFields | None


class RequestReader:
    """
    Reads requests.

    `peer_is_trusted` says whose ``X-Forwarded-*`` are believed.
    Without `read_through` no request has a resource.
    """

    def __init__(
        self,
        *,
        read_through: ReadThrough | None,
        peer_is_trusted: Callable[[str], bool],
        storage_rules: StorageRules,
    ) -> None:
        self._read_through = read_through
        self._peer_is_trusted = peer_is_trusted
        self._storage_rules = storage_rules

    def read(self, scope: Scope, client: LastFields) -> Request:
        method: str = scope["method"]
        target: bytes = scope["raw_path"]
        tiers = self._read_through if method in ("GET", "HEAD") else None
        resource = None if tiers is None else tiers.known_resource(target)
        path: ImgproxyPath | Unread | None = UNREAD
        is_raw = False
        if resource is None:
            path = read_path(target, self._storage_rules.path_rules)
            is_raw = path is not None and path.is_raw
            resource = None if tiers is None else tiers.resource(target, path)
        fields = client.fields
        if is_raw:
            fields = self._fields(scope, keep_accept_encoding=True, for_tiers=False)
        elif (
            fields is None
            or fields.received != scope["headers"]
            or fields.for_tiers is (resource is None)
        ):
            fields = client.fields = self._fields(
                scope, keep_accept_encoding=False, for_tiers=resource is not None
            )
        return Request(
            method,
            target,
            fields,
            resource if fields.may_read else None,
            path,
            self._storage_rules,
        )

    def _fields(
        self, scope: Scope, *, keep_accept_encoding: bool, for_tiers: bool
    ) -> RequestFields:
        client_ip: str = scope["client"][0]
        return read_request_fields(
            scope["headers"],
            client_ip=client_ip.encode("ascii"),
            scheme=scope["scheme"].encode("ascii"),
            peer_is_trusted=self._peer_is_trusted(client_ip),
            keep_accept_encoding=keep_accept_encoding,
            cookie_passthrough=self._storage_rules.cookie_passthrough,
            secret=self._storage_rules.secret,
            for_tiers=for_tiers,
        )
