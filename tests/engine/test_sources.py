"""Where originals come from, and what nobody gets by asking for it."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import os
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpcore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgproxy_cache.engine.errors import (
    EngineError,
    InvalidSource,
    SourceIncomplete,
    SourceNotAllowed,
    SourceTimedOut,
    SourceUnreachable,
)
from imgproxy_cache.engine.sources import (
    Network,
    NotModified,
    Source,
    SourceRules,
    fetch_source,
    open_source,
)

INSIDE = b"a picture"
SECRET = b"a secret"
ON_THIS_MACHINE = SourceRules(allow_loopback=True, download_timeout_seconds=5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures beside a secret, with links both ways."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "secret.jpg").write_bytes(SECRET)
    pictures = folder / "pictures"
    (pictures / "deep").mkdir(parents=True)
    for name in ("cat.jpg", "deep/dog.jpg", "100%25?.jpg", "100%.jpg", "with space.jpg"):
        (pictures / name).write_bytes(INSIDE)
    (pictures / "in.jpg").symlink_to("deep/dog.jpg")
    (pictures / "absolute.jpg").symlink_to(pictures / "cat.jpg")
    (pictures / "out.jpg").symlink_to("../secret.jpg")
    (pictures / "out").symlink_to("..")
    (pictures / "twice.jpg").symlink_to("out.jpg")
    (pictures / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(pictures / "pipe.jpg")
    return pictures


async def local(root: Path, url: str, *headers: tuple[bytes, bytes]) -> Source | NotModified:
    return await fetch_source(url, list(headers), SourceRules(local_root=root))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("local:///cat.jpg", id="plain"),
        pytest.param("LOCAL:///cat.jpg", id="any case of the scheme"),
        pytest.param("local://host/cat.jpg", id="a host is passed over"),
        pytest.param("local:////cat.jpg", id="slashes in front"),
        pytest.param("local:///deep/../cat.jpg", id="dots that stay inside"),
        pytest.param("local:///../../cat.jpg", id="dots cannot leave the root"),
        pytest.param("local:///cat.jpg?v=1", id="a query is cut off"),
        pytest.param("local:///100%.jpg", id="percent signs are literal"),
        pytest.param("local:///with space.jpg", id="space"),
        pytest.param("local:///in.jpg", id="a link that stays inside"),
        pytest.param("local:///absolute.jpg", id="an absolute link that stays inside"),
    ],
)
async def test_file_below_the_root_is_read(root: Path, url: str) -> None:
    source = await local(root, url)
    assert isinstance(source, Source)
    assert source.body == INSIDE


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("local:///none.jpg", id="missing"),
        pytest.param("local:///", id="the root"),
        pytest.param("local:///deep", id="a folder"),
        pytest.param("local://cat.jpg", id="only a host"),
        pytest.param("local:///../secret.jpg", id="dots"),
        pytest.param("local:///deep/../../secret.jpg", id="dots behind a folder"),
        pytest.param("local:///%2e%2e/secret.jpg", id="escaped dots"),
        pytest.param("local:///out.jpg", id="a link out"),
        pytest.param("local:///twice.jpg", id="a link to a link out"),
        pytest.param("local:///out/secret.jpg", id="a folder that is a link out"),
        pytest.param("local:///out/pictures/../secret.jpg", id="out and in again"),
        pytest.param("local:///loop.jpg", id="a link to itself"),
        pytest.param("local:///pipe.jpg", id="a named pipe, without waiting for a writer"),
        pytest.param("local:///cat.jpg\0", id="NUL"),
        pytest.param("local:///\udcff\ud800.jpg", id="no text"),
        pytest.param("local:///" + "a" * 10_000, id="too long a name"),
        pytest.param("file:///cat.jpg", id="another scheme"),
        pytest.param("cat.jpg", id="no scheme"),
        pytest.param("", id="nothing"),
    ],
)
async def test_nothing_else_is_read(root: Path, url: str) -> None:
    with pytest.raises(SourceUnreachable) as caught:
        await local(root, url)
    assert (caught.value.status, caught.value.public) == (404, "Source is unreachable")


@pytest.mark.parametrize("name", ["cat.jpg", "deep", "", "pipe.jpg", "none.jpg"])
async def test_nothing_stays_open(root: Path, name: str) -> None:
    before = set(Path("/dev/fd").iterdir())  # noqa: ASYNC240
    with suppress(SourceUnreachable):
        await local(root, f"local:///{name}")
    assert set(Path("/dev/fd").iterdir()) <= before  # noqa: ASYNC240


async def test_without_a_root_there_are_no_local_files(root: Path) -> None:
    with pytest.raises(SourceUnreachable):
        await fetch_source(f"local://{root}/cat.jpg", [], SourceRules())


async def test_client_that_has_a_local_file_does_not_get_it_again(root: Path) -> None:
    source = await local(root, "local:///cat.jpg")
    assert isinstance(source, Source)
    kept = dict(source.headers)
    same = await local(root, "local:///cat.jpg", (b"if-none-match", kept[b"etag"]))
    assert isinstance(same, NotModified)
    other = await local(root, "local:///cat.jpg", (b"if-none-match", b'"other"'))
    assert isinstance(other, Source)
    since = await local(root, "local:///cat.jpg", (b"if-modified-since", kept[b"last-modified"]))
    assert isinstance(since, NotModified)
    nonsense = await local(root, "local:///cat.jpg", (b"if-modified-since", b"yesterday"))
    assert isinstance(nonsense, Source)


async def test_local_file_is_typed_by_its_name(root: Path) -> None:
    source = await local(root, "local:///cat.jpg")
    assert dict(source.headers)[b"content-type"] == b"image/jpeg"


# HTTP


@dataclass
class WebServer:
    """Answers every path of ``answers`` with its bytes, and keeps the heads of the requests."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        path = head.split(b" ", 2)[1].decode()
        writer.write(self.answers.get(path, http(404)))
        if path == "/slow":
            await reader.read()  # until the client gives up
        writer.close()


def http(status: int, body: bytes = b"", **fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Because"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if not {"Content_Length", "Transfer_Encoding"} & set(fields):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    server = WebServer()
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


async def fetched(web: WebServer, path: str, **changes: Any) -> Source | NotModified:
    max_bytes = changes.pop("max_bytes", 0)
    rules = replace(ON_THIS_MACHINE, **changes)
    return await fetch_source(web.url(path), [], rules, max_bytes=max_bytes)


async def test_picture_is_fetched_with_its_header_fields(web: WebServer) -> None:
    web.answers["/cat.jpg"] = http(200, INSIDE, ETag='"1"', Cache_Control="max-age=60")
    source = await fetched(web, "/cat.jpg", user_agent="tester")
    assert isinstance(source, Source)
    assert source.body == INSIDE
    assert (b"etag", b'"1"') in source.headers
    assert (b"cache-control", b"max-age=60") in source.headers
    assert b"user-agent: tester" in web.heads[0].lower()
    assert b"accept-encoding" not in web.heads[0].lower()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        pytest.param("/a%2Fb//c/../d", b"/a%2Fb//c/../d", id="as written"),
        pytest.param("/a b/ä", b"/a%20b/%C3%A4", id="escaped where it must be"),
        pytest.param("/a?b=c&d={e}#f", b"/a?b=c&d={e}", id="a query, without the fragment"),
        pytest.param("?q", b"/?q", id="no path"),
    ],
)
async def test_target_reaches_the_source_as_it_was_written(
    web: WebServer, path: str, target: bytes
) -> None:
    with pytest.raises(SourceUnreachable):
        await fetched(web, path)
    assert web.heads[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")


async def test_user_of_a_url_becomes_credentials(web: WebServer) -> None:
    web.answers["/x"] = http(200, INSIDE)
    await fetch_source(f"http://me:p%40ss@127.0.0.1:{web.port}/x", [], ON_THIS_MACHINE)
    assert b"basic bwu6cebzcw==" in web.heads[0].lower()  # printf 'me:p@ss' | base64, lower-cased


async def test_conditions_are_passed_on_and_a_304_comes_back(web: WebServer) -> None:
    web.answers["/x"] = b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n'
    source = await fetch_source(web.url("/x"), [(b"If-None-Match", b'"1"')], ON_THIS_MACHINE)
    assert isinstance(source, NotModified)
    assert (b"etag", b'"1"') in source.headers
    assert b'if-none-match: "1"' in web.heads[0].lower()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(http(403), 403, id="4xx as it came"),
        pytest.param(http(404), 404, id="missing"),
        pytest.param(http(500), 502, id="5xx"),
        pytest.param(http(503), 502, id="another 5xx"),
        pytest.param(http(204), 404, id="no content"),
        pytest.param(http(302), 404, id="a redirect to nowhere"),
        pytest.param(http(206, b"abc", Content_Range="bytes 1-3/4"), 404, id="a part"),
        pytest.param(http(206, b"abc"), 404, id="a part of what"),
        pytest.param(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", 404, id="a broken head"),
        pytest.param(b"", 404, id="no answer"),
    ],
)
async def test_what_is_no_picture_is_unreachable(
    web: WebServer, answer: bytes, status: int
) -> None:
    web.answers["/x"] = answer
    with pytest.raises(SourceUnreachable) as caught:
        await fetched(web, "/x")
    assert (caught.value.status, caught.value.public) == (status, "Source is unreachable")


async def test_part_that_is_the_whole_is_taken(web: WebServer) -> None:
    web.answers["/x"] = http(206, b"abcd", Content_Range="bytes 0-3/4")
    source = await fetched(web, "/x")
    assert isinstance(source, Source)
    assert source.body == b"abcd"


async def test_any_status_is_an_answer_to_who_streams(web: WebServer) -> None:
    web.answers["/x"] = http(418, b"tea", Content_Type="text/html")
    async with open_source(web.url("/x"), [], ON_THIS_MACHINE) as answer:
        body = b"".join([chunk async for chunk in answer.chunks])
    assert (answer.status, answer.header(b"content-type"), body) == (418, "text/html", b"tea")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(200, b"abc", Content_Length="4"), id="cut"),
        pytest.param(http(200, b"9\r\nabc", Transfer_Encoding="chunked"), id="cut in a chunk"),
    ],
)
async def test_body_that_ends_too_early_is_incomplete(web: WebServer, answer: bytes) -> None:
    web.answers["/x"] = answer
    with pytest.raises(SourceIncomplete) as caught:
        await fetched(web, "/x")
    assert caught.value.status == 422


async def test_slow_source_times_out(web: WebServer) -> None:
    web.answers["/slow"] = http(200, b"abc", Content_Length="4")
    with pytest.raises(SourceTimedOut) as caught:
        await fetched(web, "/slow", download_timeout_seconds=0.1)
    assert (caught.value.status, caught.value.public) == (504, "Source is unreachable")


async def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(SourceUnreachable) as caught:
            await fetch_source(url, [], ON_THIS_MACHINE)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(200, b"12345"), id="by its length"),
        pytest.param(
            http(200, b"5\r\n12345\r\n0\r\n\r\n", Transfer_Encoding="chunked"), id="chunked"
        ),
        pytest.param(http(200, gzip.compress(b"1" * 10**7), Content_Encoding="gzip"), id="gzip"),
    ],
)
async def test_too_large_a_source_is_refused(web: WebServer, answer: bytes) -> None:
    web.answers["/x"] = answer
    with pytest.raises(InvalidSource):
        await fetched(web, "/x", max_bytes=4)


async def test_source_of_just_the_allowed_size_is_taken(web: WebServer) -> None:
    web.answers["/x"] = http(200, b"1234")
    assert isinstance(await fetched(web, "/x", max_bytes=4), Source)


async def test_body_that_was_compressed_unasked_is_unpacked(web: WebServer) -> None:
    web.answers["/x"] = http(200, gzip.compress(INSIDE), Content_Encoding="gzip")
    source = await fetched(web, "/x", max_bytes=len(INSIDE))
    assert isinstance(source, Source)
    assert source.body == INSIDE
    assert not {b"content-encoding", b"content-length"} & set(dict(source.headers))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(gzip.compress(INSIDE)[:-9], SourceIncomplete, id="cut"),
        pytest.param(b"no gzip at all", SourceUnreachable, id="none"),
    ],
)
async def test_broken_compression_is_refused(
    web: WebServer, body: bytes, expected: type[EngineError]
) -> None:
    web.answers["/x"] = http(200, body, Content_Encoding="gzip")
    with pytest.raises(expected):
        await fetched(web, "/x")


async def test_redirects_are_followed_and_counted(web: WebServer) -> None:
    web.answers["/0"] = http(200, INSIDE)
    for number in range(1, 5):
        web.answers[f"/{number}"] = http(302, Location=f"{number - 1}")
    source = await fetched(web, "/3", max_redirects=4)
    assert isinstance(source, Source)
    # imgproxy's fourth request would be the fourth redirect: "stopped after 4 redirects"
    with pytest.raises(SourceUnreachable):
        await fetched(web, "/4", max_redirects=4)
    with pytest.raises(SourceUnreachable):
        await fetched(web, "/1", max_redirects=0)


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("local:///cat.jpg", id="to a local file"),
        pytest.param("file:///etc/passwd", id="to a file"),
        pytest.param("ftp://127.0.0.1/x", id="to another scheme"),
        pytest.param("http://", id="to nothing"),
    ],
)
async def test_redirect_leads_only_to_http(web: WebServer, root: Path, location: str) -> None:
    web.answers["/x"] = http(302, Location=location)
    with pytest.raises(SourceUnreachable):
        await fetched(web, "/x", local_root=root)


async def test_sources_can_be_limited_to_some(web: WebServer) -> None:
    web.answers["/a/x"] = web.answers["/b/x"] = http(200, INSIDE)
    allowed = (re.compile(re.escape(web.url("/a/"))),)
    assert isinstance(await fetched(web, "/a/x", allowed_sources=allowed), Source)
    with pytest.raises(SourceNotAllowed) as caught:
        await fetched(web, "/b/x", allowed_sources=allowed)
    assert (caught.value.status, caught.value.public) == (404, "Invalid source URL")
    assert len(web.heads) == 1


# Addresses


class Dialled(httpcore.ConnectError):
    """The connector was asked to connect; it never does."""


@dataclass
class RecordingConnector(httpcore.AsyncNetworkBackend):
    """Keeps what it is asked to connect to, and connects to nothing."""

    asked: list[str] = field(default_factory=list)
    pretends: bool = False
    """Whether to give out a connection, of which TLS can be asked."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        if self.pretends:
            return RecordingStream(self.asked)
        raise Dialled(host)


@dataclass
class RecordingStream(httpcore.AsyncNetworkStream):
    asked: list[str]

    async def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append(f"TLS with {server_hostname}")
        raise Dialled("TLS")

    async def aclose(self) -> None:
        pass


def network_where(connector: RecordingConnector, *answers: list[str]) -> Network:
    """A network whose names resolve to these addresses, one answer after the other."""
    waiting = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return waiting.pop(0)

    return Network(resolve, connector)


async def test_name_with_a_refused_address_is_not_connected_to() -> None:
    connector = RecordingConnector()
    with pytest.raises(SourceNotAllowed) as caught:
        await fetch_source(
            "http://inside.example/", [], SourceRules(), network=network_where(connector, ["::1"])
        )
    assert connector.asked == []
    assert (caught.value.status, caught.value.public) == (404, "Invalid source URL")


async def test_only_the_allowed_of_several_addresses_are_tried() -> None:
    connector = RecordingConnector()
    addresses = ["127.0.0.1", "198.51.100.7", "169.254.169.254", "2001:db8::1"]
    with pytest.raises(SourceUnreachable):
        await fetch_source(
            "http://both.example/", [], SourceRules(), network=network_where(connector, addresses)
        )
    assert connector.asked == ["198.51.100.7", "2001:db8::1"]


async def test_name_is_resolved_once_so_that_it_cannot_change_after_the_check() -> None:
    connector = RecordingConnector()
    network = network_where(connector, ["198.51.100.7"], ["127.0.0.1"])
    with pytest.raises(SourceUnreachable):
        await fetch_source("http://rebinding.example/", [], SourceRules(), network=network)
    assert connector.asked == ["198.51.100.7"]


async def test_tls_checks_the_name_and_not_the_address() -> None:
    connector = RecordingConnector(pretends=True)
    network = network_where(connector, ["198.51.100.7"])
    with pytest.raises(SourceUnreachable):
        await fetch_source("https://secure.example/", [], SourceRules(), network=network)
    assert connector.asked == ["198.51.100.7", "TLS with secure.example"]


async def test_where_a_redirect_leads_is_checked_too(web: WebServer) -> None:
    web.answers["/x"] = http(302, Location="http://inside.example/")

    async def resolve(host: str, port: int) -> list[str]:
        return ["169.254.169.254"] if host == "inside.example" else [host]

    with pytest.raises(SourceNotAllowed):
        await fetch_source(web.url("/x"), [], ON_THIS_MACHINE, network=Network(resolve))


NAMES = st.sampled_from(
    [
        "localhost", "localhost.", "LOCALHOST", "127.0.0.1", "127.1", "0", "0.0.0.0", "2130706433",
        "0x7f000001", "0x7f.1", "017700000001", "127.0.0.1.", "[::1]", "[::]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "[fe80::1]", "[fe80::1%25lo]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
        "169.254.169.254", "[::ffff:a9fe:a9fe]", "metadata.example", "inside.example",
        "both.example", "evil.example@127.0.0.1", "127.0.0.1@evil.example",
        "evil.example#@127.0.0.1",
        "evil.example\\@127.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
        "public.example", "8.8.8.8", "10.0.0.1",
    ]
)  # fmt: skip
RESOLVED = {
    "metadata.example": ["169.254.169.254"],
    "inside.example": ["127.0.0.1", "::1"],
    "both.example": ["::ffff:127.0.0.1", "198.51.100.7", "fe80::1", "0.0.0.0"],
    "public.example": ["198.51.100.7"],
}
PIECES = st.sampled_from(
    [
        "..", "../", "/..", "/", "//", ".", "\\", "%2e%2e", "%2e%2e/", "%2f", "%252e", "%00", "\0",
        "\n", "secret.jpg", "out", "out/", "out.jpg", "twice.jpg", "cat.jpg", "deep/", "pictures/",
        "?", "#", "pipe.jpg", "etc/passwd", "proc/self/environ", "\u202e", "\uff0e\uff0e/", "~",
        "\udcff", ";", ":", "@",
    ]
)  # fmt: skip
PATHS = st.lists(PIECES | st.text(max_size=3), max_size=8).map("".join)
SCHEMES = st.sampled_from(
    ["local://", "local:///", "local:/", "local:", "LOCAL:///", "http://", "https://", "HTTP://",
     "http:/", "http:", "file://", "ftp://", "gopher://", "//", " http://", "http:\\\\", ""]
)  # fmt: skip
HOSTILE = st.builds(
    lambda scheme, name, port, path: scheme + name + port + path,
    SCHEMES,
    NAMES | st.just("") | st.text(max_size=8),
    st.sampled_from(["", ":80", ":0", ":99999", ":", ":-1"]),
    PATHS.map(lambda path: path if path.startswith("/") else "/" + path) | PATHS,
)


async def resolve_without_asking(host: str, port: int) -> list[str]:
    """As the system resolves, of numbers, however they are written; names by the table above."""
    if host in RESOLVED:
        return RESOLVED[host]
    if host.rstrip(".").lower() == "localhost":
        return ["127.0.0.1", "::1"]
    found = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
    return [str(address[0]) for *_, address in found]


def is_refused(text: str) -> bool:
    """What must never be connected to, in the words of the standard library."""
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(
        each.is_loopback or each.is_link_local or each.is_unspecified for each in (address, mapped)
    )


@pytest.mark.slow
@settings(
    max_examples=1000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(sources=st.lists(HOSTILE, min_size=10, max_size=10))
def test_of_ten_thousand_hostile_sources_none_reaches_what_it_must_not(
    root: Path, sources: list[str]
) -> None:
    connector = RecordingConnector()
    network = Network(resolve_without_asking, connector)
    rules = SourceRules(local_root=root)

    async def fetch_all() -> None:
        for url in sources:
            try:
                source = await fetch_source(url, [], rules, network=network)
            except EngineError:
                continue
            assert isinstance(source, Source)
            assert source.body == INSIDE, url

    asyncio.run(fetch_all())
    assert [address for address in connector.asked if is_refused(address)] == []
