"""Is imgproxy well?  Asked at start and by ``/ready``, through httpx over our own connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from imgproxy_cache.core.headers import Headers
from imgproxy_cache.errors import UpstreamError
from imgproxy_cache.upstream import Upstream

POLL_SECONDS = 0.1


class UpstreamTransport(httpx.AsyncBaseTransport):
    """
    httpx's view of an :class:`~imgproxy_cache.upstream.Upstream`.

    Images do not pass here: httpx's request and response objects alone cost as
    much as a whole exchange.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        head = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
        head += [b"%b: %b" % field for field in request.headers.raw]
        answer = _Collected()
        exchange = self._upstream.fetch(
            b"\r\n".join([*head, b"", b""]), answer, is_head=request.method == "HEAD"
        )
        try:
            await answer.done
        finally:
            exchange.abandon()
        return httpx.Response(answer.status, headers=answer.headers, stream=answer)


class _Collected(httpx.AsyncByteStream):
    """An answer of imgproxy, gathered in memory."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._chunks: list[bytes] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    def answer_began(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers

    def chunk_came(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def answer_ended(self, *, is_whole: bool) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fetch_failed(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(httpx.ConnectError(str(error)))


class ImgproxyHealth:
    """imgproxy's health check at `base_url` + `path`, with `timeout_seconds` for an answer."""

    def __init__(
        self, upstream: Upstream, base_url: str, path: str, *, timeout_seconds: float = 5.0
    ) -> None:
        self._upstream = upstream
        self._url = base_url.rstrip("/") + path
        self._timeout_seconds = timeout_seconds

    async def why_not_ready(self) -> str | None:
        """One line that says what is wrong; None if imgproxy is well."""
        client = httpx.AsyncClient(transport=UpstreamTransport(self._upstream), trust_env=False)
        try:
            async with asyncio.timeout(self._timeout_seconds), client:
                answer = await client.get(self._url)
        except TimeoutError:
            return f"GET {self._url}: no answer in {self._timeout_seconds:g} s"
        except httpx.HTTPError as exc:
            return f"GET {self._url}: {exc}"
        if answer.status_code != 200:
            return f"GET {self._url}: answered {answer.status_code}"
        return None

    async def wait(self, timeout_seconds: float) -> str | None:
        """Ask until imgproxy is well, or say why it was not in time."""
        reason: str | None = "not asked yet"
        try:
            async with asyncio.timeout(timeout_seconds):
                while (reason := await self.why_not_ready()) is not None:
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            return reason
        return None
