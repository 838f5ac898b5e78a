"""A request as it was read: what imgproxy is asked, and what the tiers are."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto
from typing import Final

from imgproxy_cache.core.access import Resource
from imgproxy_cache.core.imgproxy_path import ImgproxyPath, read_path
from imgproxy_cache.core.policy import StorageRules, accept_is_ignored
from imgproxy_cache.core.request_fields import RequestFields
from imgproxy_cache.core.sharing import flight_key


class Unread(Enum):
    """What stands in the place of a path that nobody needed so far."""

    UNREAD = auto()


UNREAD: Final = Unread.UNREAD


class Request:
    """
    A request, read, but for what only imgproxy needs of it: a hit goes without, and takes 5 us
    less.  (Made in half of a named tuple's time.)

    `resource` is None where no tier may answer.  `path` may be :data:`UNREAD` still.
    """

    __slots__ = ("_flight_key", "_path", "_rules", "fields", "method", "resource", "target")

    def __init__(
        self,
        method: str,
        target: bytes,
        fields: RequestFields,
        resource: Resource | None,
        path: ImgproxyPath | Unread | None,
        rules: StorageRules,
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.resource = resource
        self._path = path
        self._flight_key: Hashable | None = UNREAD
        self._rules = rules

    @property
    def path(self) -> ImgproxyPath | None:
        """None where the target can be no processing path."""
        if self._path is UNREAD:
            self._path = read_path(self.target, self._rules.path_rules)
        return self._path

    @property
    def flight_key(self) -> Hashable | None:
        """What it has in common with those that may share its fetch; None if that are none."""
        if self._flight_key is UNREAD:
            path = self.path
            ignored = accept_is_ignored(self._rules, path)
            self._flight_key = flight_key(
                self.method, self.target, path, self.fields.sharing, accept_is_ignored=ignored
            )
        return self._flight_key

    def wire(self, more_lines: bytes = b"") -> bytes:
        """As imgproxy is sent it."""
        return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (
            self.method.encode("ascii"),
            self.target,
            self.fields.lines,
            more_lines,
        )
