"""The image to store; the hashes come from `printf %s ... | sha256sum`."""

from imgproxy_cache.core.image import Image, image_from_answer


def test_image_carries_its_fields_and_what_proves_them() -> None:
    image = image_from_answer(
        path=b"/a",
        body=b"hello",
        content_type="image/jpeg",
        cache_control="max-age=31536000, public",
        content_disposition=None,
        at=1_795_221_245.999,  # date -u -d 2026-11-21T00:34:05Z +%s
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
