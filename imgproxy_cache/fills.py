"""What becomes of an answer from imgproxy: where it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from imgproxy_cache.core.answer_fields import AnswerFields, stored_fields
from imgproxy_cache.core.freshness import lifetimes
from imgproxy_cache.core.hit import kept_from_answer
from imgproxy_cache.core.kept import KeptAnswer, Lifetimes, Selection, without_body
from imgproxy_cache.core.key import KeyRules, identity_from_target, key_from_identity
from imgproxy_cache.core.policy import (
    NotStored,
    StorageRules,
    why_not_kept,
    why_not_stored,
    why_not_stored_whole,
)
from imgproxy_cache.core.printable import printable_target
from imgproxy_cache.core.request import Request
from imgproxy_cache.core.validation import (
    confirms,
    freshened,
    is_outage,
    updated_fields,
    validation_fields,
)
from imgproxy_cache.core.variants import are_alike, named_fields, selection
from imgproxy_cache.errors import UpstreamError
from imgproxy_cache.read_through import ReadThrough
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.uploads.pending import INLINE_BYTES, Upload

log = structlog.get_logger()


class Landed(Protocol):
    """An answer that has ended, as :class:`~imgproxy_cache.flight.Flight` has it."""

    status: int
    fields: AnswerFields
    size: int
    is_whole: bool
    error: UpstreamError | None
    why_not_stored: NotStored | None

    @property
    def chunks(self) -> tuple[bytes, ...]: ...


class FetchEvents(Protocol):
    """What is counted of answers from imgproxy."""

    def fetch_ended(self, status: int, size: int) -> None: ...

    def refused(self, why_not: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where answers are kept: in the store (by `uploads`) and in the tiers of read-through."""

    rules: StorageRules
    key_rules: KeyRules
    uploads: Uploads
    tiers: ReadThrough | None
    events: FetchEvents
    now: Callable[[], float]
    under_way: dict[asyncio.Task[None], bytes] = field(default_factory=dict)
    """Large images that are on their way there, by name."""

    async def until_kept(self, name: bytes) -> bool:
        """Wait for a large image of this name that is on its way; False if there is none."""
        under_way = [task for task, its_name in self.under_way.items() if its_name == name]
        if under_way:
            await asyncio.wait(under_way)
        return bool(under_way)


class Fill:
    """
    The answer to one request, from its head on to the places where it is kept.

    `stale` is what a tier has, if imgproxy is asked whether that is still good;
    `is_validated` that it said so; `is_about_another`, that its 304 is about something else, and
    it has to be asked again without conditions.  `kept` is the answer, once all of it is there
    and it may be given again.
    """

    __slots__ = (
        "_is_probe",
        "_keeper",
        "_keeping",
        "_lifetimes",
        "_selection",
        "_why_not_in_store",
        "is_about_another",
        "is_validated",
        "kept",
        "request",
        "stale",
    )

    def __init__(
        self, keeper: Keeper, request: Request, stale: KeptAnswer | None, is_probe: bool
    ) -> None:
        self.request = request
        self.stale = stale
        self.is_validated = False
        self.is_about_another = False
        self.kept: KeptAnswer | None = None
        self._keeper = keeper
        self._is_probe = is_probe
        self._why_not_in_store: NotStored | None = None
        self._lifetimes: Lifetimes | None = None
        self._selection: Selection = ()
        self._keeping: asyncio.Task[None] | None = None

    def wire(self) -> bytes:
        """What imgproxy is sent."""
        if self.stale is None or self.stale.status != 200:
            return self.request.wire()
        conditions = [b"%b: %b\r\n" % field for field in validation_fields(self.stale)]
        return self.request.wire(b"".join(conditions))

    def is_for(self, request: Request, fields: AnswerFields) -> bool:
        """
        Whether the answer, with these fields, is one to this request too (RFC 9111 section 4.1).

        What imgproxy itself varies by, requests that share their fetch have in common.
        """
        vary = fields.by_name.get(b"vary", b"")
        if self.is_validated and self.stale is not None:
            vary = b", ".join(name for name, _ in self.stale.selection)
        return not vary or are_alike(
            vary, self.request.fields.for_upstream, request.fields.for_upstream
        )

    def judge(self, status: int, fields: AnswerFields) -> NotStored | None:
        """Why the answer is kept nowhere, as far as its head tells."""
        keeper, request = self._keeper, self.request
        now = keeper.now()
        self._why_not_in_store = why_not = why_not_stored(
            keeper.rules,
            method=request.method,
            path=request.path,
            credentials=request.fields.credentials,
            status=status,
            fields=fields.by_name,
            now=now,
        )
        if request.resource is None or keeper.tiers is None:
            return why_not
        why_not_in_tiers = self._judge_for_tiers(keeper.tiers, status, fields, now)
        return why_not and why_not_in_tiers

    async def whole(self) -> KeptAnswer | None:
        """What is kept of an answer that has ended."""
        if self._keeping is not None:
            await asyncio.shield(self._keeping)
        return self.kept

    def landed(self, flight: Landed) -> None:
        """The fetch is over: keep the answer, if it may be kept."""
        keeper = self._keeper
        if keeper.tiers is not None and self.request.path is not None:
            # What is no GET imgproxy answers at once, however many images fail.
            tells = self.request.method == "GET" or not flight.status
            status, error = (flight.status, flight.error) if tells else (0, None)
            keeper.tiers.admission.told(status, error, was_probe=self._is_probe)
        if not flight.status:
            return
        keeper.events.fetch_ended(flight.status, flight.size)
        if flight.why_not_stored is not None:
            return
        why_not = why_not_stored_whole(keeper.rules, size=flight.size, complete=flight.is_whole)
        if why_not is not None:
            keeper.events.refused(why_not)
            log.warning(
                "image.refused",
                message="announced as stored, but the body is not to be kept",
                target=printable_target(self.request.target),
                reason=why_not,
                bytes=flight.size,
            )
            return
        upload, resource = self._upload(flight), self.request.resource
        if self._lifetimes is None or resource is None:
            keeper.uploads.offer(upload)
        elif flight.size <= INLINE_BYTES:
            self._keep(flight.status, flight.fields, upload)
        else:
            self._keeping = asyncio.create_task(
                self._keep_large(flight.status, flight.fields, upload)
            )
            keeper.under_way[self._keeping] = resource.name
            self._keeping.add_done_callback(keeper.under_way.pop)

    # Below: in the order in which the above calls it

    def _judge_for_tiers(
        self, tiers: ReadThrough, status: int, fields: AnswerFields, now: float
    ) -> NotStored | None:
        if status == 304 and self.stale is not None:
            if confirms(self.stale, fields):
                self._freshen(tiers, self.stale, fields, now)
            else:
                self.is_about_another = True
                tiers.forget(self.stale.name)
            return NotStored.STATUS
        why_not = self._why_not_in_tiers(tiers, status, fields, now)
        is_kept_anew = why_not is None and status == 200
        if self.stale is not None and not is_kept_anew and not is_outage(status):
            # It is no longer what imgproxy answers (RFC 9111 section 4.3.3).
            tiers.forget(self.stale.name)
        return why_not

    def _freshen(
        self, tiers: ReadThrough, stale: KeptAnswer, fields: AnswerFields, now: float
    ) -> None:
        """imgproxy says that the kept answer is still good: for another lifetime."""
        self.is_validated = True
        again = _lifetimes(tiers, updated_fields(stale, fields, now), now)
        if again is None:
            # Good for those that wait, and for nobody later.
            tiers.forget(stale.name)
            self.kept = freshened(stale, fields, Lifetimes(now, 0, now, now, now))
        else:
            self.kept = freshened(stale, fields, again)
            tiers.keep(self.kept)

    def _why_not_in_tiers(
        self, tiers: ReadThrough, status: int, fields: AnswerFields, now: float
    ) -> NotStored | None:
        request = self.request
        seconds = tiers.staleness.negative_seconds
        if status == 404 and request.method == "GET" and seconds:
            self._lifetimes = Lifetimes(now, 0, now + seconds, now + seconds, now + seconds)
            return None
        if self._why_not_in_store is not None:  # what may be stored may be kept here as well
            why_not = why_not_kept(
                self._keeper.rules,
                method=request.method,
                path=request.path,
                credentials=request.fields.credentials,
                status=status,
                fields=fields.by_name,
                now=now,
            )
            if why_not is not None:
                return why_not
        names = named_fields(fields.by_name.get(b"vary", b""))
        chosen = None if names is None else selection(names, request.fields.for_upstream)
        if chosen is None:
            return NotStored.VARY
        self._selection = chosen
        self._lifetimes = _lifetimes(tiers, fields.by_name, now)
        return None if self._lifetimes is not None else NotStored.CACHE_CONTROL

    def _upload(self, flight: Landed) -> Upload:
        keeper, target = self._keeper, self.request.target
        fields = stored_fields(flight.fields)
        identity = identity_from_target(target, keeper.key_rules)
        return Upload(
            key=key_from_identity(identity),
            path=identity,
            chunks=flight.chunks,
            size=flight.size,
            content_type=fields.content_type,
            cache_control=fields.cache_control,
            content_disposition=fields.content_disposition,
        )

    async def _keep_large(self, status: int, fields: AnswerFields, upload: Upload) -> None:
        await asyncio.to_thread(upload.whole)
        self._keep(status, fields, upload)

    def _keep(self, status: int, fields: AnswerFields, upload: Upload) -> None:
        tiers, resource = self._keeper.tiers, self.request.resource
        if tiers is None or resource is None or self._lifetimes is None:
            return
        body, content_sha256 = upload.whole()
        self.kept = kept_from_answer(
            name=resource.name,
            selection=self._selection,
            status=status,
            fields=fields,
            body=body,
            content_sha256=content_sha256,
            lifetimes=self._lifetimes,
        )
        tiers.keep(self.kept, on_disk=status == 200 and not self._offer(tiers, upload))

    def _offer(self, tiers: ReadThrough, upload: Upload) -> bool:
        """
        Whether the uploads take it, and the disk tier has it as soon as it is stored.

        A store that fails may do so for hours: the disk tier does not wait for it then.
        """
        if self._why_not_in_store is not None or self.kept is None:
            return False
        upload.kept = without_body(self.kept)
        store = tiers.store
        if store is not None:
            upload.replaces = store.is_broken(upload.key)
        uploads = self._keeper.uploads
        is_taken = uploads.offer(upload)
        if is_taken and store is not None:
            store.expect(upload.key)
        return is_taken and uploads.store_problem is None


def _lifetimes(tiers: ReadThrough, by_name: Mapping[bytes, bytes], now: float) -> Lifetimes | None:
    return lifetimes(
        by_name,
        now,
        stale_while_revalidate_seconds=tiers.staleness.while_revalidate_seconds,
        stale_if_error_seconds=tiers.staleness.if_error_seconds,
    )
