"""
The tiers in front of imgproxy, from the nearest to the farthest: memory, disk, store.

What is found in a farther one is put into the nearer ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from imgproxy_cache.core.access import Resource, resource_from_target
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.core.imgproxy_path import ImgproxyPath, PathRules
from imgproxy_cache.core.kept import Kept, KeptAnswer, Signpost, TierKey, signpost_to, tier_key
from imgproxy_cache.core.key import KeyRules
from imgproxy_cache.core.request import Request
from imgproxy_cache.core.variants import selection
from imgproxy_cache.read_through.admission import Admission
from imgproxy_cache.read_through.remembered import Remembered
from imgproxy_cache.tiers import Counted
from imgproxy_cache.tiers.disk import DiskTier
from imgproxy_cache.tiers.memory import Held, MemoryTier
from imgproxy_cache.tiers.on_disk import OnDisk
from imgproxy_cache.tiers.store import StoreTier

# Targets whose signatures have been verified: 10,000 of 150 bytes, and none that is longer than
# this, or they would be 250.
TARGETS_BYTES: Final = 8 * 1024 * 1024
MAX_TARGET_BYTES: Final = 512
# Two hashes, and what has them.
STORED_NAME_BYTES: Final = 270

_Hit = TypeVar("_Hit", bound=Held | OnDisk)


@dataclass(frozen=True, slots=True)
class Staleness:
    """What the operator grants where an answer says nothing; seconds."""

    while_revalidate_seconds: float
    if_error_seconds: float
    negative_seconds: int
    """How long a 404 is kept in memory; 0: not at all."""


class Found(NamedTuple):
    """An answer in a tier; its body is in `metadata` or, if that has none, `held`."""

    tier: bytes
    metadata: KeptAnswer
    size: int
    held: Held | None

    @property
    def kept(self) -> KeptAnswer:
        """The whole answer."""
        return self.metadata if self.held is None else self.held.kept


def found_in(tier: bytes, kept: KeptAnswer) -> Found:
    return Found(tier, kept, len(kept.body), None)


class ReadThrough:
    """
    What the tiers have for a request, and where an answer is kept.

    `disk` and `store` may be None.
    """

    def __init__(
        self,
        *,
        memory: MemoryTier,
        disk: DiskTier | None,
        store: StoreTier | None,
        path_rules: PathRules,
        key_rules: KeyRules,
        admission: Admission,
        staleness: Staleness,
    ) -> None:
        self.memory = memory
        self.disk = disk
        self.store = store
        self.admission = admission
        self.staleness = staleness
        self._path_rules = path_rules
        self._key_rules = key_rules
        self._resources: Remembered[Resource] = Remembered(TARGETS_BYTES)
        # With what those wait for who came later, if anybody did.
        self._searches: dict[Hashable, asyncio.Future[Found | None] | None] = {}

    @property
    def tiers(self) -> Mapping[str, Counted]:
        """Those that there are, by name."""
        tiers: dict[str, Counted | None] = {
            "memory": self.memory,
            "disk": self.disk,
            "store": self.store,
        }
        return {name: tier for name, tier in tiers.items() if tier is not None}

    def known_resource(self, target: bytes) -> Resource | None:
        """
        What the target asks for, if it was asked for before.

        A path is read and its signature verified once for a target, not once for a hit.
        """
        return self._resources.get(target)

    def resource(self, target: bytes, path: ImgproxyPath | None) -> Resource | None:
        """What the target, with this path, asks for; None where no tier may answer."""
        resource = resource_from_target(target, path, self._path_rules, self._key_rules)
        if resource is not None and len(target) <= MAX_TARGET_BYTES:
            size = len(target) + len(resource.name)
            if resource.stored_name is not None:
                size += STORED_NAME_BYTES
            self._resources.remember(target, resource, size)
        return resource

    @property
    def nearest(self) -> MemoryTier | DiskTier | None:
        """What may answer at once, without another tier being asked; None where there is none."""
        return self.memory if self.memory.max_bytes else self.disk

    def known_key(self, target: bytes) -> TierKey | None:
        """Where the answer to a target lies that was seen before."""
        resource = self.known_resource(target)
        return None if resource is None else tier_key(resource.name)

    def find_now(self, resource: Resource, headers: Headers) -> Found | None:
        """The answer, if it is in memory."""
        held = self.memory.find(tier_key(resource.name))
        if isinstance(held, Signpost):
            held = variant(self.memory.find, held, headers)
        if held is None:
            self.memory.counts.misses += 1
            return None
        return Found(b"memory", held.metadata, held.size, held)

    def has_other_variants(self, resource: Resource) -> bool:
        """Whether there are, or were, answers for requests with other fields: what memory knows."""
        entry = self.memory.entries.entry(tier_key(resource.name))
        return entry is not None and isinstance(entry.value, Signpost)

    async def search(
        self, request: Request, resource: Resource, stale: Found | None
    ) -> Found | None:
        """
        The answer, if it is farther away, and better than the one that memory has.

        Requests for the same search once, unless what is found varies by what they differ in.
        """
        key = (resource.name, request.fields.sharing)
        if key in self._searches:
            found = await self._found_by_another(key)
            if found is None:
                return stale  # of another variant, or come since that search began
            if _is_for(found.metadata, request.fields.for_upstream):
                return found
            return await self._search(request, resource, stale)
        if self.disk is None and (stale is not None or not self._may_be_stored(resource)):
            return stale
        self._searches[key] = None
        found = stale
        try:
            found = await self._search(request, resource, stale)
        finally:
            others = self._searches.pop(key)
            if others is not None:
                others.set_result(found)
        return found

    def keep(self, kept: KeptAnswer, *, on_disk: bool = True) -> None:
        """Put an answer into the local tiers."""
        self._keep_in_memory(kept)
        if on_disk and self.disk is not None:
            for key, value in _entries(kept):
                self.disk.put(key, value)

    def forget(self, name: bytes) -> None:
        """What the local tiers have for this name is no longer to be given."""
        self.memory.remove(tier_key(name))
        if self.disk is not None:
            self.disk.remove(tier_key(name))

    async def _found_by_another(self, key: Hashable) -> Found | None:
        search = self._searches[key]
        if search is None:
            search = self._searches[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(search)

    def _may_be_stored(self, resource: Resource) -> bool:
        name = resource.stored_name
        return name is not None and self.store is not None and self.store.may_have(name.key)

    async def _search(
        self, request: Request, resource: Resource, stale: Found | None
    ) -> Found | None:
        found = None
        if self.disk is not None:
            found = await self._on_disk(self.disk, resource.name, request.fields.for_upstream)
        if stale is not None:
            # Another worker may have filled the disk meanwhile; the store has nothing newer.
            is_newer = found is not None and _is_newer(found.metadata, stale.metadata)
            found = found if is_newer else None
        elif found is None and self.store is not None and resource.stored_name is not None:
            stored = await self.store.get(resource.stored_name, resource.name)
            if stored is not None:
                found = found_in(b"store", stored)
                if self.disk is not None:
                    self.disk.put(tier_key(stored.name), stored)
        if found is None:
            return stale
        self._keep_in_memory(found.metadata)
        return found

    async def _on_disk(self, disk: DiskTier, name: bytes, headers: Headers) -> Found | None:
        kept = await disk.get(tier_key(name))
        if isinstance(kept, Signpost):
            self.memory.put(tier_key(name), kept)
            chosen = selection(kept.names, headers)
            kept = None if chosen is None else await disk.get(tier_key(name, chosen))
        return found_in(b"disk", kept) if isinstance(kept, KeptAnswer) else None

    def _keep_in_memory(self, kept: KeptAnswer) -> None:
        for key, value in _entries(kept):
            self.memory.put(key, value)


def variant(
    find: Callable[[TierKey], _Hit | Signpost | None], signpost: Signpost, headers: Headers
) -> _Hit | None:
    """
    The answer to which a signpost leads a request with these fields.

    They are those that imgproxy would be sent.
    """
    chosen = selection(signpost.names, headers)
    found = None if chosen is None else find(tier_key(signpost.name, chosen))
    return None if isinstance(found, Signpost) else found


def _entries(kept: KeptAnswer) -> list[tuple[TierKey, Kept]]:
    """Where an answer lies, and what leads there."""
    if not kept.selection:
        return [(tier_key(kept.name), kept)]
    return [
        (tier_key(kept.name), signpost_to(kept)),
        (tier_key(kept.name, kept.selection), kept),
    ]


def _is_for(kept: KeptAnswer, headers: Headers) -> bool:
    names = tuple(name for name, _ in kept.selection)
    return not names or selection(names, headers) == kept.selection


def _is_newer(kept: KeptAnswer, other: KeptAnswer) -> bool:
    return kept.lifetimes.fresh_until > other.lifetimes.fresh_until
