"""
The flow of one request: read it, look into the tiers, find or start its flight, relay the answer.

An ASGI application behind :class:`~imgproxy_cache.protocol.ClientConnection`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from math import floor
from typing import Final, Protocol

import structlog
from starlette.types import Receive, Scope, Send

from imgproxy_cache.answer import (
    BODY_TOO_LARGE,
    CLIENT_GONE,
    Answer,
    Recipient,
    answer_failure,
    give,
    name_of,
    new_request_id,
    read_away_body,
    refuse_body,
)
from imgproxy_cache.buffer import Buffer
from imgproxy_cache.core.access import Resource
from imgproxy_cache.core.answer_fields import answer_headers
from imgproxy_cache.core.cache_status import (
    Forwarded,
    cache_status,
    cache_status_of_hit,
    cache_status_of_stale,
)
from imgproxy_cache.core.http_date import http_date
from imgproxy_cache.core.key import KeyRules
from imgproxy_cache.core.policy import StorageRules
from imgproxy_cache.core.printable import printable_target
from imgproxy_cache.core.request import Request
from imgproxy_cache.core.request_fields import RequestFields
from imgproxy_cache.core.validation import is_outage
from imgproxy_cache.errors import UpstreamError, UpstreamFailing, UpstreamTimedOut
from imgproxy_cache.fills import Fill, Keeper
from imgproxy_cache.flight import ClientGone, Flight, Passenger
from imgproxy_cache.log import InfoLog
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.read_through import Found, ReadThrough, found_in
from imgproxy_cache.read_through.fast_lane import FastLane
from imgproxy_cache.reading import RequestReader
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.upstream import Upstream

log = structlog.get_logger()

# What memory answers is too much for a log, and nothing happens in it.
NOT_LOGGED: Final = "hit-memory"
STALE_IF_ERROR: Final = "stale-if-error"
STALE_WHILE_REVALIDATE: Final = "stale-while-revalidate"
REVALIDATED: Final = "revalidated"
STORED: Final = "stored"
# For so long imgproxy, which takes 5 to 50 ms and as long as its source, may be about to answer:
# then it hangs, and something stale that may be given when it fails is better than waiting.
PATIENCE_SECONDS: Final = 2.0


class Client(Protocol):
    """What the proxy needs of a client's connection."""

    fields: RequestFields | None
    """Of its last request, for the next."""

    is_lost: bool
    """The client hung up."""
    on_lost: Callable[[], None] | None
    """Called when it does."""

    @property
    def answering(self) -> Recipient:
        """Where the answer to the request goes whose turn it is."""

    @property
    def has_refused(self) -> bool:
        """It has answered for itself, and told who counts."""

    def break_off(self) -> None: ...

    def read_alone(self) -> bytes | None:
        """
        The bytes of its request, if they came whole and alone in one read, of HTTP/1.1, and
        the connection stays open: what the fast lane can learn from.
        """


class Proxy:
    """
    Answers every request from the tiers or imgproxy, and has good images kept.

    `now` is the time in seconds since the epoch.  Without `read_through`, which is the reader's
    too, every request goes to imgproxy.  A fetch that has not begun to answer after
    `patience_seconds` goes on without those who may be given something stale.
    """

    def __init__(
        self,
        *,
        reader: RequestReader,
        upstream: Upstream,
        buffer: Buffer,
        uploads: Uploads,
        read_through: ReadThrough | None,
        fast_lane: FastLane | None,
        metrics: Metrics,
        info_log: InfoLog,
        storage_rules: StorageRules,
        key_rules: KeyRules,
        now: Callable[[], float],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._read = reader.read
        self._upstream = upstream
        self._buffer = buffer
        self._read_through = read_through
        self._fast_lane = fast_lane
        self._keeper = Keeper(
            rules=storage_rules,
            key_rules=key_rules,
            uploads=uploads,
            tiers=read_through,
            events=metrics,
            now=now,
        )
        self._metrics = metrics
        self._info_log = info_log
        self._max_object_bytes = storage_rules.max_object_bytes
        self._now = now
        self._patience_seconds = patience_seconds
        self._flights: dict[Hashable, Flight] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        client: Client = scope["extensions"]["imgproxy_cache"]
        request = self._read(scope, client)
        answer = Answer(request, client.answering)
        if request.fields.has_body:
            problem = await read_away_body(scope["headers"], receive)
            if problem == BODY_TOO_LARGE:
                await refuse_body(answer)
            if problem is not None:
                if not client.has_refused:
                    self._report(answer, problem, began)
                return
        collapsed, found = False, None
        if self._read_through is not None and request.resource is not None:
            found = await self._look_up(self._read_through, request.resource, request, client)
        if found is not None and self._is_fresh(found):
            outcome = f"hit-{found.tier.decode('ascii')}"
            await self._give_hit(found, answer)
        elif found is not None and self._may_be_given_while_validated(found, request):
            outcome = STALE_WHILE_REVALIDATE
            await self._give_hit(found, answer)
        else:
            outcome, collapsed = await self._ask_imgproxy(found, client, answer)
        self._report(answer, outcome, began, collapsed=collapsed)

    async def finish(self, deadline: float) -> None:
        """
        Wait for images whose clients have gone, but not longer than to the deadline on
        the event loop's clock.  How many are then still missing is logged.
        """
        loop = asyncio.get_running_loop()
        while flights := [one for one in self._flights.values() if one.why_not_stored is None]:
            left = deadline - loop.time()
            if left <= 0:
                log.warning("fetch.abandoned", items=len(flights))
                return
            await asyncio.wait([flights[0].progress()], timeout=left)
        if self._keeper.under_way:
            await asyncio.wait(self._keeper.under_way, timeout=max(0, deadline - loop.time()))

    async def _look_up(
        self, read_through: ReadThrough, resource: Resource, request: Request, client: Client
    ) -> Found | None:
        """The best that the tiers have, fresh or not."""
        fields = request.fields
        found = read_through.find_now(resource, fields.for_upstream)
        if self._fast_lane is not None and (read := client.read_alone()) is not None:
            self._fast_lane.learn(read, fields)
        if found is None or not self._is_fresh(found):
            if self._keeper.under_way and await self._keeper.until_kept(resource.name):
                found = read_through.find_now(resource, fields.for_upstream)
            if found is None or not self._is_fresh(found):
                found = await read_through.search(request, resource, found)
        return found

    def _is_fresh(self, found: Found) -> bool:
        return self._now() < found.metadata.lifetimes.fresh_until

    def _may_be_given_while_validated(self, found: Found, request: Request) -> bool:
        """As `stale-while-revalidate` has it: imgproxy is asked, and nobody waits for that."""
        if self._now() >= found.metadata.lifetimes.stale_while_revalidate_until:
            return False
        if request.method == "GET":
            with suppress(UpstreamFailing):
                self._find_or_start(request, found)
        return True

    def _give_hit(self, found: Found, answer: Answer) -> Awaitable[None]:
        now = float(floor(self._now()))  # the fast lane makes one head a second
        status = cache_status_of_hit(found.metadata.lifetimes, now, found.tier)
        return give(found, answer, now=now, cache_status=status)

    async def _ask_imgproxy(
        self, found: Found | None, client: Client, answer: Answer
    ) -> tuple[str, bool]:
        """Relay imgproxy's answer, or give what is kept where that is better; how that went."""
        request = answer.request
        forwarded = self._forwarded(request, found)  # as it is before the answer is kept
        collapsed, passenger = False, None
        try:
            flight, collapsed = self._find_or_start(request, found)
            passenger = _board(flight, client)
            await self._beginning(passenger, found)
            if flight.fill.is_about_another:
                passenger.leave()
                flight, collapsed = self._find_or_start(request, None)
                passenger = _board(flight, client)
                await self._beginning(passenger, found)
            # Another's fetch may have conditions, or bring what varies by what differs here.
            if flight.fill.is_about_another or (
                collapsed and not flight.fill.is_for(request, flight.fields)
            ):
                passenger.leave()
                flight, collapsed = self._start(request, None), False
                passenger = _board(flight, client)
                await self._beginning(passenger, found)
            outcome = None
            if request.resource is not None:
                outcome = await self._give_instead(
                    found, passenger, answer, forwarded, collapsed=collapsed
                )
            if outcome is None:
                await _relay(passenger, answer, forwarded, collapsed, self._now)
                outcome = str(flight.why_not_stored or STORED)
        except ClientGone:
            outcome = CLIENT_GONE
        except UpstreamError as error:
            outcome = name_of(error)
            if answer.status:
                client.break_off()
            elif found is not None and self._may_be_given_on_error(found):
                await self._give_on_error(found, error, answer)
                outcome = STALE_IF_ERROR
            else:
                await answer_failure(error, answer, forwarded)
            if outcome != STALE_IF_ERROR:  # of which its line says enough
                _log_failure(answer, error)
        finally:
            if passenger is not None:
                client.on_lost = None
                passenger.leave()
        return outcome, collapsed

    def _beginning(self, passenger: Passenger, found: Found | None) -> Awaitable[None]:
        """Wait for imgproxy's status, but not for long where `found` may be given on error."""
        if found is None or not self._may_be_given_on_error(found):
            return passenger.beginning()
        return self._beginning_in_time(passenger)

    async def _beginning_in_time(self, passenger: Passenger) -> None:
        """
        Wait for imgproxy's status, but not for long.

        Raises:
            UpstreamTimedOut: the fetch goes on, and what it brings is kept
        """
        try:
            async with asyncio.timeout_at(passenger.flight.began_at + self._patience_seconds):
                await passenger.beginning()
        except TimeoutError as exc:
            cause = f"has not begun to answer after {self._patience_seconds:g} s"
            raise UpstreamTimedOut(cause) from exc

    def _find_or_start(self, request: Request, found: Found | None) -> tuple[Flight, bool]:
        """
        The flight that fetches this answer, and whether it was under way.

        Raises:
            UpstreamFailing: imgproxy is left alone for a moment
        """
        key = request.flight_key
        if key is not None:
            flight = self._flights.get(key)
            if flight is not None and flight.can_be_boarded:
                return flight, True
        flight = self._start(request, found)
        if key is not None and not flight.is_over:
            self._flights[key] = flight
        return flight, False

    def _start(self, request: Request, found: Found | None) -> Flight:
        """
        A flight of its own.

        Raises:
            UpstreamFailing: imgproxy is left alone for a moment
        """
        is_probe = False
        if self._read_through is not None and request.path is not None:
            # Whatever is no image, its health too, imgproxy answers however many images fail.
            is_probe = self._read_through.admission.ask()
        stale = found.kept if found is not None and request.method == "GET" else None
        flight = Flight(
            self._upstream,
            self._buffer,
            Fill(self._keeper, request, stale, is_probe),
            request.method == "HEAD",
            self._max_object_bytes,
            self._landed,
        )
        flight.start()
        return flight

    def _landed(self, flight: Flight) -> None:
        key = flight.fill.request.flight_key
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.fill.landed(flight)

    async def _give_instead(
        self,
        found: Found | None,
        passenger: Passenger,
        answer: Answer,
        forwarded: Forwarded,
        *,
        collapsed: bool,
    ) -> str | None:
        """Give what is kept in the place of imgproxy's answer, where that is better."""
        flight = passenger.flight
        fill = flight.fill
        if fill.is_validated and fill.kept is not None:
            tier = b"memory" if found is None else found.tier
            await self._give_after_asking(found_in(tier, fill.kept), flight.status, answer)
            return REVALIDATED
        if found is not None and is_outage(flight.status) and self._may_be_given_on_error(found):
            await self._give_after_asking(found, flight.status, answer)
            return STALE_IF_ERROR
        if answer.request.fields.conditions and flight.why_not_stored is None:
            # What of the image the client wants can be told when all of it is there.
            await passenger.end()
            if flight.error is not None:
                raise flight.error  # nothing was sent yet: an answer of its own is still possible
            kept = None if flight.is_streaming else await fill.whole()
            if kept is not None:
                status = cache_status(None, collapsed=collapsed, forwarded=forwarded)
                whole = found_in(b"upstream", kept)
                await give(whole, answer, now=self._now(), cache_status=status)
                return STORED
        return None

    async def _give_on_error(self, found: Found, error: UpstreamError, answer: Answer) -> None:
        """Give what is stale: imgproxy gave no answer, or was not asked, because it fails."""
        if isinstance(error, UpstreamFailing):
            await self._give_hit(found, answer)
        else:
            await self._give_after_asking(found, 0, answer)

    async def _give_after_asking(self, found: Found, upstream_status: int, answer: Answer) -> None:
        """Give what a tier has: imgproxy said it was good (304), or failed (0: no answer)."""
        now = self._now()
        lifetimes = found.metadata.lifetimes
        status = cache_status_of_stale(lifetimes, now, found.tier, upstream_status)
        await give(found, answer, now=now, cache_status=status)

    def _may_be_given_on_error(self, found: Found) -> bool:
        return self._now() < found.metadata.lifetimes.stale_if_error_until

    def _forwarded(self, request: Request, found: Found | None) -> Forwarded:
        """Why imgproxy was asked."""
        if found is not None:
            return Forwarded.STALE
        if self._read_through is None:
            return Forwarded.URI_MISS
        if request.resource is None:
            return Forwarded.BYPASS
        has_others = self._read_through.has_other_variants(request.resource)
        return Forwarded.VARY_MISS if has_others else Forwarded.URI_MISS

    def _report(
        self, answer: Answer, outcome: str, began: float, *, collapsed: bool = False
    ) -> None:
        ended = time.perf_counter()
        self._metrics.request_ended(
            outcome,
            collapsed=collapsed,
            seconds=ended - began,
            first_byte_seconds=answer.first_byte_at - began if answer.status else None,
            size=answer.size,
        )
        request = answer.request
        report = log.debug if outcome == NOT_LOGGED else self._info_log
        report(
            "request.served",
            method=request.method,
            target=printable_target(request.target),
            status=answer.status,
            bytes=answer.size,
            milliseconds=int((ended - began) * 1e5 + 0.5) / 100,  # round() takes 0.3 us
            outcome=outcome,
            collapsed=collapsed,
        )


def _board(flight: Flight, client: Client) -> Passenger:
    passenger = flight.board()
    client.on_lost = passenger.hang_up
    if client.is_lost:
        passenger.hang_up()
    return passenger


async def _relay(
    passenger: Passenger,
    answer: Answer,
    forwarded: Forwarded,
    collapsed: bool,
    now: Callable[[], float],
) -> None:
    flight, request = passenger.flight, answer.request
    headers = answer_headers(
        flight.fields,
        cache_status=cache_status(flight.why_not_stored, collapsed=collapsed, forwarded=forwarded),
        request_id=(request.fields.request_id or new_request_id()) if collapsed else None,
        hides_etag=request.resource is not None,
    )
    if b"date" not in flight.fields.by_name:  # RFC 9110 section 6.6.1
        headers.append((b"Date", http_date(int(now()))))
    answer.begin(flight.status, headers)
    if not flight.is_over and flight.chunk(0) is None:
        # The head waits for the first bytes of a body, to go with them; not for imgproxy.
        await answer.write(b"", is_last=False)
    is_last = False
    while not is_last:
        chunk, is_last = passenger.take() or await passenger.next_chunk()
        await answer.write(chunk, is_last=is_last)


def _log_failure(answer: Answer, error: UpstreamError) -> None:
    request = answer.request
    log.warning(
        "request.failed",
        method=request.method,
        target=printable_target(request.target),
        status=answer.status,
        reason=name_of(error),
        message=str(error),
    )
