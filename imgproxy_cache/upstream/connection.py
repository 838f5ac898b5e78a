"""One connection to a server: parsed by httptools, one exchange at a time."""

from __future__ import annotations

import asyncio
from time import monotonic  # an event loop's own clock takes four times as long
from typing import Protocol, cast

import httptools

from imgproxy_cache.core.framing import is_close_delimited, is_coded
from imgproxy_cache.core.headers import Headers
from imgproxy_cache.errors import UpstreamBroken, UpstreamError, UpstreamTimedOut
from imgproxy_cache.upstream.exchange import Exchange


class Pool(Protocol):
    """Whose connection it is: told when it opens and closes, and when its slot is free."""

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def release(self, connection: Connection | None) -> None: ...

    def retry(self, exchange: Exchange) -> None: ...


class Connection(asyncio.Protocol):
    """Given to the next exchange by its `pool`, as long as it can be used again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._was_used = False
        self._is_reusable = False
        self._is_paused = False
        self._got_bytes = False
        self._last_read = monotonic()  # the sweep may come before the first request
        self._status = 0
        self._headers: Headers = []

    # What the pool and the exchange ask for

    def is_usable(self, max_idle_seconds: float) -> bool:
        idle_seconds = monotonic() - self._last_read
        return idle_seconds < max_idle_seconds and not self._transport.is_closing()

    def send(self, exchange: Exchange) -> None:
        if exchange.is_over:  # abandoned while the connection was being made
            self._last_read = monotonic()
            self._was_used = True  # it may be closed by the time it is asked for
            self._pool.release(self)
            return
        if self._transport.is_closing():
            self._pool.release(None)
            exchange.fail(UpstreamBroken("closed a connection it had just accepted"))
            return
        self._exchange = exchange
        self._got_bytes = False
        self._status = 0
        self._headers = []
        self._last_read = monotonic()
        exchange.sent_on(self)
        self._transport.write(exchange.request)

    def pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._last_read = monotonic()
            self._transport.resume_reading()

    def close(self) -> None:
        self._transport.abort()

    def check_time(
        self, now: float, *, max_idle_seconds: float, read_timeout_seconds: float
    ) -> None:
        silent_seconds = now - self._last_read
        if self._exchange is None:
            if silent_seconds >= max_idle_seconds:
                self.close()
        elif silent_seconds >= read_timeout_seconds and not self._is_paused:
            self._fail(UpstreamTimedOut(f"sent nothing for {read_timeout_seconds:g} s"))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.close()  # it speaks only when it was asked
            return
        self._last_read = monotonic()
        self._got_bytes = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamBroken("switched protocols, which nobody asked for"))
        except httptools.HttpParserError as exc:
            if self._exchange is not None:
                self._fail(UpstreamBroken(f"sent what is not HTTP: {exc}"))
            else:
                self._is_reusable = False
        if self._exchange is None and not self._transport.is_closing():
            self._free()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.closed(self)
        if self._exchange is None:
            return
        if not self._got_bytes and self._was_used and not self._exchange.is_retry:
            exchange, self._exchange = self._exchange, None
            if exchange.is_over:
                self._pool.release(None)
            else:
                self._pool.retry(exchange)
        elif self._status and exc is None and is_close_delimited(self._headers):
            self._end(is_whole=False, reusable=False)
            self._pool.release(None)
        else:
            self._fail(UpstreamBroken("closed the connection in the middle of its answer"))

    def _fail(self, error: UpstreamError) -> None:
        exchange, self._exchange = self._exchange, None
        self.close()
        self._pool.release(None)
        if exchange is not None:
            exchange.fail(error)

    def _end(self, *, is_whole: bool, reusable: bool) -> None:
        exchange, self._exchange = self._exchange, None
        self._was_used = True
        self._is_reusable = reusable
        if exchange is not None and not exchange.is_over:
            exchange.is_over = True
            exchange.sink.answer_ended(is_whole=is_whole)

    def _free(self) -> None:
        """
        Give the connection back, once all that was read with the answer's end is parsed:
        bytes that follow an answer must not become the beginning of the next one.
        """
        if self._is_paused:
            self.resume()
        if self._is_reusable:
            self._pool.release(self)
        else:
            self.close()
            self._pool.release(None)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._headers = []
        if self._exchange is None:  # a second answer to one request
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        exchange = self._exchange
        if status < 200 or exchange is None:  # 100 and 103 precede the answer
            return
        if is_coded(self._headers):
            self._fail(UpstreamBroken("sent a transfer coding that nobody has asked for"))
            return
        self._status = status
        if not exchange.is_over:
            exchange.sink.answer_began(status, self._headers)
        if exchange.is_head and not self._transport.is_closing():
            # The parser cannot be told that no body follows: it is replaced.
            reusable = self._parser.should_keep_alive()
            self._parser = httptools.HttpResponseParser(self)
            self._end(is_whole=True, reusable=reusable)

    def on_body(self, chunk: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # what follows an answer to HEAD
            self._is_reusable = False
        elif not exchange.is_over:
            exchange.sink.chunk_came(chunk)

    def on_message_complete(self) -> None:
        # An exchange that was given up meanwhile is left to connection_lost, for its slot.
        if self._exchange is not None and self._status and not self._transport.is_closing():
            self._end(is_whole=True, reusable=self._parser.should_keep_alive())
