"""`imgproxy-cache spool`: what waits and why, and having it tried now."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from imgproxy_cache.app import uploads_from
from imgproxy_cache.core.location import whereabouts
from imgproxy_cache.errors import SpoolError
from imgproxy_cache.metrics import Metrics
from imgproxy_cache.private_folder import store_folder
from imgproxy_cache.settings import Settings
from imgproxy_cache.stores import open_store
from imgproxy_cache.uploads.spool_folder import (
    ask_for_retry,
    bring_back,
    notes,
    quarantined,
    spooled_files,
)

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def retry_spool(settings: Settings, *, set_aside: bool = False) -> tuple[str, int]:
    """
    Have everything tried now, and on wish what was set aside: by the server if one runs, else here.

    Returns what came of it, and the exit status: 1 if something is left.
    """
    folder = _folder(settings)
    if set_aside:
        bring_back(folder, time.time())
    waiting = len(list(spooled_files(folder)))
    if ask_for_retry(folder):
        return f"asked the running server to try {_images(waiting)} now: see its log", 0
    aside = len(list(quarantined(folder)))
    problem = asyncio.run(_upload_all(settings))
    left = len(list(spooled_files(folder)))
    more_aside = len(list(quarantined(folder))) - aside
    result = f"{waiting - left - more_aside} stored, {left} left, {more_aside} set aside"
    if problem:
        result += f"; the store fails: {problem}"
    return result, 1 if left or more_aside else 0


async def _upload_all(settings: Settings) -> str | None:
    # Whoever asks for a retry does not ask for old images to be given up.
    settings = replace(settings, spool_max_age_seconds=float("inf"))
    async with (
        open_store(settings.store) as store,
        uploads_from(settings, store, Metrics(), spool_is_lasting=True) as uploads,
    ):
        await uploads.adopt()
        await uploads.drain(deadline=float("inf"))
        return uploads.store_problem


def describe_spool(settings: Settings) -> Iterator[str]:
    """What is in the spool of this store, line by line, whether a server runs or not."""
    folder = _folder(settings)
    files = list(spooled_files(folder))
    aside = list(quarantined(folder))
    yield f"spool of {settings.store}: {folder}"
    size = sum(file.size for file in files)
    oldest = min((file.accepted_at for file in files), default=None)
    age = "" if oldest is None else f", the oldest for {_duration(time.time() - oldest)}"
    yield f"waiting: {_images(len(files))}, {size} bytes{age}"
    for note in map(json.loads, notes(folder)):
        yield from _described_note(note)
    if aside:
        yield f"set aside: {_images(len(aside))}, {sum(file.size for file, _ in aside)} bytes"
    for file, reason in aside:
        yield f"  {file.path}: {reason}"


def _described_note(note: dict[str, Any]) -> Iterator[str]:
    """What a server has left word of, be it alive or not."""
    if note["store_problem"]:
        yield f"the store fails: {note['store_problem']}"
    if note["spool_problem"]:
        yield f"the spool fails: {note['spool_problem']}"
    if note["reasons"]:
        yield "last failures:"
    for reason in note["reasons"]:
        ago = _duration(time.time() - reason["last_at"])
        yield f"  {reason['count']} x, last {ago} ago: {reason['text']}"


def _folder(settings: Settings) -> Path:
    folder = store_folder(settings.spool_dir, whereabouts(settings.store))
    if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SpoolError(f"{folder}: not readable: run this as the user that the server runs as")
    return folder


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _duration(seconds: float) -> str:
    """In its largest unit."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "0 s"
