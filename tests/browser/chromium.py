"""A headless Chromium of the machine's, and what it does with a page that has one image."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.async_api import Request, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
LOAD_MILLISECONDS = 20_000


@dataclass(frozen=True, slots=True)
class Load:
    """What came of loading a page."""

    width: int
    """Of the image that is shown, in its own pixels."""
    shown: str
    """The image's URL."""
    body: bytes
    asked: list[str]
    """Every URL that the browser asked for beside the page, in order."""


@contextmanager
def served_page(html: str) -> Iterator[str]:
    """A web server on loopback with one page; yields its URL."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = (200, html.encode()) if self.path == "/" else (404, b"")
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join(10)


async def load(url: str, user_data: Path) -> Load:
    """
    Open a page until its image is shown, in a browser that has never seen anything.

    ``user_data`` is a folder that is not there yet.
    """
    requests: list[Request] = []
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            str(user_data), executable_path=CHROMIUM, args=FLAGS, timeout=LOAD_MILLISECONDS
        )
        try:
            page = context.pages[0]
            # A lambda, since playwright cannot take the method of a list. Requests and not answers:
            # of what is no image the browser does not let a page see the answer.
            page.on("request", lambda request: requests.append(request))  # noqa: PLW0108
            await page.goto(url, timeout=LOAD_MILLISECONDS)
            await page.wait_for_function(
                "document.images[0].naturalWidth > 0", timeout=LOAD_MILLISECONDS
            )
            shown = await page.evaluate("document.images[0].currentSrc")
            width = await page.evaluate("document.images[0].naturalWidth")
            asked = [request for request in requests if not request.url.startswith(url)]
            answer = await asked[-1].response()
            body = await answer.body() if answer is not None else b""
        finally:
            await context.close()
    return Load(width, shown, body, [request.url for request in asked])
