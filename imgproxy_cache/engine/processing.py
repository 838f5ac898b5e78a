"""What happens to a processing path: the story of one image, top to bottom."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from functools import partial

from structlog.typing import FilteringBoundLogger

from imgproxy_cache.core.imgproxy_path import ImgproxyPath, read_path, signature_is_valid
from imgproxy_cache.engine.answers import (
    Answer,
    cache_control,
    first,
    image_headers,
    validators,
    vary,
)
from imgproxy_cache.engine.errors import EngineError, Forbidden, InvalidUrl, UnsupportedFormat
from imgproxy_cache.engine.formats import format_of
from imgproxy_cache.engine.options import Options
from imgproxy_cache.engine.render import render, why_not_saved
from imgproxy_cache.engine.settings import Settings
from imgproxy_cache.engine.source_url import source_url
from imgproxy_cache.engine.sources import (
    Headers,
    NotModified,
    Source,
    check_is_allowed,
    fetch_source,
)
from imgproxy_cache.engine.url_options import options_from_path
from imgproxy_cache.engine.work import Workers


class SignatureIsAnOption(Forbidden):
    """The path has no signature, as people forget where nothing is signed."""

    public = (
        "The signature appears to be a processing option. "
        "The signature section should always be present in the URL."
    )


class Processing:
    """Answers processing paths; ``fallback`` is answered where a source cannot be had."""

    def __init__(
        self,
        settings: Settings,
        workers: Workers,
        fallback: Source | None,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._fallback = fallback
        self._log = log
        self._clock = clock

    def understood(self, target: bytes, headers: Headers) -> tuple[str, Options]:
        """
        What is asked for: the source's URL and the options.

        Raises: InvalidUrl, Forbidden, SourceNotAllowed.
        """
        settings = self._settings
        path = read_path(target, settings.path)
        if path is None:
            raise InvalidUrl("the path has no signature, or nothing behind it")
        self._check_signature(path)
        accept = first(headers, b"accept") or ""
        accepted = {name for name in settings.answers.auto_formats if f"image/{name}" in accept}
        options = options_from_path(
            path,
            settings.options,
            now=self._clock(),
            only_presets=settings.path.only_presets,
            prefer_formats=frozenset(accepted),
            enforce_formats=settings.answers.enforce_formats & accepted,
        )
        url = source_url(path, settings)
        # Here already, for a source that is not allowed gets no fallback image either.
        check_is_allowed(url, settings.sources)
        return url, options

    async def image(self, url: str, options: Options, headers: Headers) -> Answer:
        """
        Get a source and render it.

        Raises: EngineError.
        """
        if reason := why_not_saved(options.format):
            raise UnsupportedFormat(reason)
        async with self._workers.turn() as run:
            source, status = await self._source(url, options, headers)
            if isinstance(source, NotModified):
                return self._not_modified(source, options)
            rendered = await run(partial(render, source.body, options, self._settings.render))
        rules = self._settings.answers
        is_fallback = source is self._fallback
        return Answer(
            status,
            [
                *image_headers(
                    rendered,
                    url=url,
                    options=options,
                    source=[] if is_fallback else source.headers,
                    source_bytes=len(source.body),
                    rules=rules,
                ),
                *cache_control(
                    status,
                    expires=options.expires,
                    source=source.headers,
                    rules=rules,
                    now=self._clock(),
                    fallback=self._settings.fallback if is_fallback else None,
                ),
            ],
            rendered.body,
        )

    def _check_signature(self, path: ImgproxyPath) -> None:
        if not signature_is_valid(path, self._settings.path):
            raise Forbidden("wrong signature")
        if not self._settings.path.keys and ":" in path.signature:
            raise SignatureIsAnOption("the signature looks like an option")

    async def _source(
        self, url: str, options: Options, headers: Headers
    ) -> tuple[Source | NotModified, int]:
        """The source, or the fallback image in its place, and the status to answer with."""
        try:
            source = await fetch_source(
                url,
                self._conditionals(headers),
                self._settings.sources,
                max_bytes=max(0, options.limits.src_file_size),
            )
            if isinstance(source, Source):
                format_of(source.body)  # what is no image is as good as missing
        except EngineError as exc:
            if self._fallback is None:
                raise
            self._log.warning("source.failed", url=url, error=str(exc))
            return self._fallback, self._settings.fallback.status or exc.status
        return source, 200

    def _conditionals(self, headers: Headers) -> Headers:
        rules = self._settings.answers
        passed_on = {
            b"if-none-match": rules.etag,
            b"if-modified-since": rules.last_modified,
        }
        return [field for field in headers if passed_on.get(field[0])]

    def _not_modified(self, source: NotModified, options: Options) -> Answer:
        rules = self._settings.answers
        lifetime = cache_control(
            304, expires=options.expires, source=source.headers, rules=rules, now=self._clock()
        )
        return Answer(304, [*lifetime, *validators(source.headers, rules), *vary(rules)], b"")


def secret_is_right(headers: Headers, secret: str) -> bool:
    """Takes the same time for near and far misses."""
    given = first(headers, b"authorization") or ""
    expected = f"Bearer {secret}".encode("utf-8", "surrogateescape")
    return not secret or hmac.compare_digest(given.encode("latin-1"), expected)
