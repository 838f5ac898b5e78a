"""``http://`` and ``https://`` sources, connected to at the address that was checked."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import httpcore

from imgproxy_cache.engine.addresses import why_refused
from imgproxy_cache.engine.errors import (
    EngineError,
    SourceIncomplete,
    SourceNotAllowed,
    SourceTimedOut,
    SourceUnreachable,
)
from imgproxy_cache.engine.http_url import HttpUrl, http_url
from imgproxy_cache.engine.source_answer import Headers, SourceAnswer, SourceRules

REDIRECTS = {301, 302, 303, 307, 308}

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Give the addresses of a host, best first; raises OSError."""


async def resolved(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class Network:
    """How names become addresses and addresses connections; the only way out of the engine."""

    resolve: Resolve = resolved
    connector: httpcore.AsyncNetworkBackend = field(default_factory=httpcore.AnyIOBackend)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """
    Connects to the very addresses that were checked.

    A name is resolved once, here: whatever it resolves to later is not asked
    for.  TLS goes on checking the name, not the address.
    """

    def __init__(self, network: Network, rules: SourceRules) -> None:
        self._network = network
        self._rules = rules

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._network.resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise SourceUnreachable(f"cannot resolve {host}: {exc}") from exc
        refusals = [self._why_refused(address) for address in addresses]
        allowed = [a for a, refusal in zip(addresses, refusals, strict=True) if refusal is None]
        problem: Exception | None = None
        for address in allowed:
            try:
                return await self._network.connector.connect_tcp(
                    address,
                    port,
                    timeout=self._rules.download_timeout_seconds / len(allowed),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                problem = exc
        if problem:
            raise problem
        raise SourceNotAllowed(next(filter(None, refusals), f"{host} has no address"))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _why_refused(self, address: str) -> str | None:
        rules = self._rules
        return why_refused(
            address,
            allow_loopback=rules.allow_loopback,
            allow_link_local=rules.allow_link_local,
            allow_private=rules.allow_private,
        )


@asynccontextmanager
async def open_http(
    text: str, request_headers: Headers, rules: SourceRules, network: Network
) -> AsyncIterator[SourceAnswer]:
    """
    Ask a source, and those that it redirects to; they are checked as it is.

    Raises: SourceNotAllowed, SourceUnreachable, SourceTimedOut, SourceIncomplete.
    """
    url = http_url(text)
    try:
        # A connection for every source: httpcore's pool does not survive cancelled requests
        # (encode/httpcore#1093), and what is fetched here is rendered for far longer.
        async with AsyncExitStack() as stack, asyncio.timeout(rules.download_timeout_seconds):
            answer = await _sent(url, request_headers, rules, network, stack)
            for requests in range(1, rules.max_redirects + 2):
                location = answer.header(b"location") if answer.status in REDIRECTS else None
                if location is None:
                    yield answer
                    return
                if requests >= rules.max_redirects:
                    break
                text = urljoin(text, location)
                await stack.aclose()
                answer = await _sent(http_url(text), request_headers, rules, network, stack)
            raise SourceUnreachable(f"stopped after {rules.max_redirects} redirects")
    except TimeoutError as exc:
        raise SourceTimedOut(f"{url.host} took too long") from exc
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as exc:
        raise _unreachable(url.host, exc) from exc


async def _sent(
    url: HttpUrl,
    request_headers: Headers,
    rules: SourceRules,
    network: Network,
    stack: AsyncExitStack,
) -> SourceAnswer:
    pool = await stack.enter_async_context(
        httpcore.AsyncConnectionPool(
            ssl_context=_tls(verify=not rules.ignore_ssl_verification),
            network_backend=CheckedBackend(network, rules),
            max_keepalive_connections=0,
        )
    )
    headers = [(b"host", url.authority), (b"user-agent", rules.user_agent.encode())]
    if url.authorization:
        headers.append((b"authorization", url.authorization))
    response = await stack.enter_async_context(
        pool.stream(
            "GET",
            httpcore.URL(
                scheme=url.scheme.encode(),
                host=url.host.encode(),
                port=url.port,
                target=url.target,
            ),
            headers=[*headers, *request_headers],
        )
    )
    chunks = _body(response)
    stack.push_async_callback(chunks.aclose)
    headers = [(name.lower(), value) for name, value in response.headers]
    return SourceAnswer(response.status, headers, chunks)


async def _body(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in response.aiter_stream():
            yield chunk
    except (httpcore.RemoteProtocolError, httpcore.ReadError) as exc:
        raise SourceIncomplete(f"the body broke off: {exc}") from exc


def _unreachable(host: str, exc: Exception) -> EngineError:
    if isinstance(exc, httpcore.TimeoutException):
        return SourceTimedOut(f"{host} took too long")
    return SourceUnreachable(f"{host}: {exc or type(exc).__name__}")


@functools.cache
def _tls(*, verify: bool) -> ssl.SSLContext:
    """Reading the system's certificates takes tens of milliseconds: once is enough."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
