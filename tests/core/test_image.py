"""The image to store; the hashes come from `printf %s ... | sha256sum`."""

from datetime import UTC, datetime, timedelta, timezone

from imgproxy_cache.core.image import Image, image_from_answer


def test_image_carries_its_fields_and_what_proves_them() -> None:
    image = image_from_answer(
        path=b"/a",
        body=b"hello",
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
        now=datetime(2026, 11, 21, 0, 34, 5, 999_999, tzinfo=UTC),
    )

    assert image == Image(
        body=b"hello",
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
        path_sha256="6a50dc8584134c7de537c0052ff6d236bf874355e050c90523e0c5ff2a543a28",
        content_sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        stored_at="2026-11-21T00:34:05Z",
    )


def test_time_of_storing_is_told_in_utc() -> None:
    image = image_from_answer(
        path=b"/a",
        body=b"hello",
        content_type="image/jpeg",
        cache_control=None,
        content_disposition=None,
        now=datetime(2026, 11, 21, 0, 34, 5, tzinfo=timezone(timedelta(hours=2))),
    )

    assert image.stored_at == "2026-11-20T22:34:05Z"
