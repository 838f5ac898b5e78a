"""
The page that it is all for: the bucket first, and the proxy where the bucket has nothing.

In a real browser, with a real S3 server, the proxy and the embedded engine as processes.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import readme
from tests.browser.chromium import CHROMIUM, load, served_page
from tests.servers import build
from tests.servers.engine import running_engine
from tests.servers.proxy import RunningProxy, running_proxy
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not build.is_ci(), reason="there is no Chromium on this machine"
)
BUCKET, PROXY = "https://BUCKET_URL", "https://PROXY"  # what the README has in their place
KEYS = {"IMGPROXY_KEY": "00112233445566778899aabbccddeeff", "IMGPROXY_SALT": "f0f1f2f3f4f5"}


@dataclass(frozen=True, slots=True)
class Site:
    """The proxy, and the bucket that it fills and a page reads from."""

    proxy: RunningProxy
    proxy_url: str
    bucket_url: str

    def requests(self) -> list[str]:
        """The paths that the proxy was asked for, but not whether it is well."""
        paths = [served["target"] for served in self.proxy.events("request.served")]
        return [path for path in paths if path != "/health"]


@asynccontextmanager
async def site(s3: S3Server, bucket: str, settings: Mapping[str, str]) -> AsyncIterator[Site]:
    s3.make_bucket(bucket, public=True)
    store = {"S3_BUCKET": bucket, "S3_ENDPOINT": s3.endpoint, **s3.environ}
    with running_engine(settings) as engine:
        async with running_proxy(engine.port, **store, **settings) as proxy:
            yield Site(proxy, f"http://127.0.0.1:{proxy.port}", f"{s3.endpoint}/{bucket}")


async def test_page_gets_its_image_by_way_of_the_proxy_once_and_then_from_the_bucket(
    s3: S3Server, tmp_path: Path
) -> None:
    path = "/insecure/rs:fill:300:200/plain/local:///chelsea.jpg@webp"
    # printf %s "$path" | md5sum
    name = "de2c91a97682f8cccce528ea767d3886"
    async with site(s3, "page-unsigned", {}) as there:
        html = readme.blocks("html")[0]
        for old, new in (
            ("/resize:fill:300:300/plain/https://example.com/image.jpg", path),
            ("c9009a400f110797b2710ce2a5bd60a4", name),
            (BUCKET, there.bucket_url),
            (PROXY, there.proxy_url),
        ):
            assert old in html
            html = html.replace(old, new)
        await two_loads(there, s3, "page-unsigned", html, path, name, tmp_path)


async def test_page_with_signed_urls_by_the_python_code_of_the_readme(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in KEYS.items():
        monkeypatch.setenv(variable, value)
    template: dict[str, Any] = {}
    exec(readme.blocks("python")[0], template)
    async with site(s3, "page-signed", {**KEYS, "S3_FOLDER": "processed"}) as there:
        template["BUCKET"], template["PROXY"] = f"{there.bucket_url}/processed", there.proxy_url
        image = ("local:///chelsea.jpg", "rs:fill:300:200", "webp")
        path = template["signed_path"](*image)
        name = f"processed/{template['object_name'](path)}"
        html = template["image_tag"](*image)
        await two_loads(there, s3, "page-signed", html, path, name, tmp_path)


async def two_loads(
    there: Site, s3: S3Server, bucket: str, html: str, path: str, name: str, folder: Path
) -> None:
    in_the_bucket, by_the_proxy = f"{there.bucket_url}/{name}", f"{there.proxy_url}{path}"
    with served_page(html) as url:
        first = await load(url, folder / "first")
        await there.proxy.wait_for("upload.stored")
        second = await load(url, folder / "second")

    assert first.asked == [in_the_bucket, by_the_proxy]
    assert (first.shown, first.width) == (by_the_proxy, 300)
    assert second.asked == [in_the_bucket]
    assert (second.shown, second.width) == (in_the_bucket, 300)
    assert there.requests() == [path]
    stored = s3.read(bucket, name)
    assert first.body == second.body == stored.body
    assert stored.content_type == "image/webp"
