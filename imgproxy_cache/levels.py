"""The gauges of `/metrics`: what is in use, and its limit."""

from __future__ import annotations

from imgproxy_cache.buffer import Buffer
from imgproxy_cache.metrics import Level
from imgproxy_cache.read_through import ReadThrough
from imgproxy_cache.tiers.store import StoreTier
from imgproxy_cache.uploads import Uploads
from imgproxy_cache.uploads.spooling import Spooling
from imgproxy_cache.upstream import Upstream


def levels(
    upstream: Upstream, buffer: Buffer, uploads: Uploads, read_through: ReadThrough | None
) -> tuple[Level, ...]:
    """One worker's."""
    return (
        ("upstream_in_use", "Requests at imgproxy", lambda: upstream.in_use),
        (
            "upstream_in_use_limit",
            "Requests that may be at imgproxy",
            lambda: upstream.max_connections,
        ),
        ("upstream_waiting", "Requests waiting for a connection", lambda: upstream.waiting),
        (
            "upstream_waiting_limit",
            "Requests that may wait for a connection",
            lambda: upstream.max_waiting,
        ),
        ("upstream_connections", "Open connections to imgproxy", lambda: upstream.open_connections),
        ("buffer_bytes", "Memory of images in flight", lambda: buffer.used),
        ("buffer_bytes_limit", "Memory that images in flight may take", lambda: buffer.max_bytes),
        ("buffer_waiting", "Fetches waiting for memory", lambda: buffer.waiting),
        ("buffer_waiting_limit", "Fetches that may wait for memory", lambda: buffer.max_waiting),
        ("upload_queue_items", "Images waiting for upload", lambda: uploads.queue_items),
        ("upload_queue_items_limit", "Images that may wait for upload", lambda: uploads.max_items),
        ("upload_queue_bytes", "Bytes waiting for upload", lambda: uploads.queue_bytes),
        ("upload_queue_bytes_limit", "Bytes that may wait for upload", lambda: uploads.max_bytes),
        ("upload_waiting", "Images not stored yet, in memory or spool", lambda: uploads.waiting),
        (
            "upload_oldest_seconds",
            "Age of the oldest image not stored yet",
            lambda: uploads.oldest_seconds,
        ),
        ("store_is_down", "1 while nothing is uploaded", lambda: uploads.store_problem is not None),
        *_spool_levels(uploads.spool),
        *_tier_levels(read_through),
    )


def _spool_levels(spool: Spooling | None) -> tuple[Level, ...]:
    if spool is None:
        return ()
    limits = spool.limits
    return (
        ("spool_items", "Images in the spool", lambda: spool.files),
        ("spool_items_limit", "Images that the spool may take", lambda: limits.max_files),
        ("spool_bytes", "Bytes in the spool", lambda: spool.bytes),
        ("spool_bytes_limit", "Bytes that the spool may take", lambda: limits.max_bytes),
        (
            "spool_max_age_seconds",
            "Images in the spool are given up at this age",
            lambda: limits.max_age_seconds,
        ),
        ("spool_is_failing", "1 while nothing is spooled", lambda: spool.problem is not None),
    )


def _tier_levels(read_through: ReadThrough | None) -> tuple[Level, ...]:
    if read_through is None:
        return ()
    memory, disk, admission = read_through.memory, read_through.disk, read_through.admission
    found: tuple[Level, ...] = (
        ("upstream_is_failing", "1 while imgproxy is left alone", lambda: admission.is_open),
        ("memory_tier_bytes", "Bytes in the memory tier", lambda: memory.counts.bytes),
        (
            "memory_tier_bytes_limit",
            "Bytes that the memory tier may take",
            lambda: memory.max_bytes,
        ),
        ("memory_tier_items", "Answers in the memory tier", lambda: memory.counts.items),
        *_store_tier_levels(read_through.store),
    )
    if disk is None:
        return found
    return (
        *found,
        ("disk_tier_bytes", "Bytes in the disk tier, of all workers", lambda: disk.counts.bytes),
        ("disk_tier_bytes_limit", "Bytes that the disk tier may take", lambda: disk.max_bytes),
        ("disk_tier_items", "Answers in the disk tier", lambda: disk.counts.items),
        (
            "disk_tier_is_failing",
            "1 while nothing is kept on disk",
            lambda: disk.problem is not None,
        ),
    )


def _store_tier_levels(store: StoreTier | None) -> tuple[Level, ...]:
    if store is None:
        return ()
    text = "1 while nothing is read from the store"
    return (("store_tier_is_failing", text, lambda: store.problem is not None),)
