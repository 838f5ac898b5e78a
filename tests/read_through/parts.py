"""Read-through without local tiers, and the fields of what it is asked."""

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.hit import HitHeads
from imgproxy_cache.core.imgproxy_path import PathRules
from imgproxy_cache.core.key import KeyRules
from imgproxy_cache.core.request_fields import RequestFields, read_request_fields
from imgproxy_cache.read_through import ReadThrough, Staleness
from imgproxy_cache.read_through.admission import Admission
from imgproxy_cache.tiers.memory import MemoryTier
from imgproxy_cache.tiers.store import StoreTier

RULES = PathRules()


def read_through(store: StoreTier | None = None) -> ReadThrough:
    """With no tier but the store, if that."""
    return ReadThrough(
        memory=MemoryTier(max_bytes=0, max_items=0, max_files=0, heads=HitHeads(b"memory")),
        disk=None,
        store=store,
        path_rules=RULES,
        key_rules=KeyRules(),
        admission=Admission(),
        staleness=Staleness(0, 0, 0),
    )


def fields_for_tiers(headers: Headers) -> RequestFields:
    """Of a client that nobody trusts."""
    return read_request_fields(
        headers,
        client_ip=b"127.0.0.1",
        scheme=b"http",
        peer_is_trusted=False,
        keep_accept_encoding=False,
        cookie_passthrough=False,
        for_tiers=True,
    )
