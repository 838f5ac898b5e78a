"""What is asked of the store, and what is not."""

from dataclasses import dataclass, field

import pytest

from imgproxy_cache.core.image import Image, StoredObject
from imgproxy_cache.core.key import Key
from imgproxy_cache.uploads.dedup import RECENT_ITEMS, Dedup, Put
from tests.stores.images import KEY, picture

# The time of `picture()`: date -d 2026-02-03T04:05:06Z +%s
NOW = 1_770_091_506.0
NEW, OTHER = picture(b"new"), picture(b"old")


@dataclass
class ScriptedStore:
    """Has `there` under every key, and notes what it is asked."""

    there: StoredObject | None = None
    asked: list[str] = field(default_factory=list)
    place: str = "s3://images"

    def create(self, key: Key, image: Image) -> bool:
        self.asked.append("create")
        return self.there is None

    def find(self, key: Key) -> StoredObject | None:
        self.asked.append("find")
        return self.there

    def put(self, key: Key, image: Image) -> None:
        self.asked.append("put")

    def get(self, key: Key, max_bytes: int | None = None) -> Image | None:
        raise NotImplementedError

    async def delete(self, key: Key) -> None:
        raise NotImplementedError

    async def check(self) -> None:
        raise NotImplementedError


def found(image: Image, **changed: object) -> StoredObject:
    fields = {
        "size": len(image.body),
        "etag": '"any"',
        "path_sha256": image.path_sha256,
        "content_sha256": image.content_sha256,
        "stored_at": image.stored_at,
    }
    return StoredObject(**fields | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "asked", "outcome"),
    [
        pytest.param(None, ["create"], Put.NEW, id="nothing there: one request"),
        pytest.param(found(NEW), ["create", "find"], Put.SAME, id="the same"),
        pytest.param(found(OTHER), ["create", "find", "put"], Put.NEW, id="another of its size"),
        pytest.param(
            found(NEW, size=99),
            ["create", "find", "put"],
            Put.NEW,
            id="the same hash, not its size",
        ),
        pytest.param(
            # printf new | md5sum
            found(NEW, content_sha256="", etag='"22af645d1859cb5ca6da0c484f1f37ea"'),
            ["create", "find"],
            Put.SAME,
            id="without its hash, of the same MD5",
        ),
        pytest.param(
            found(NEW, content_sha256="", etag='"22af645d1859cb5ca6da0c484f1f37ea-2"'),
            ["create", "find", "put"],
            Put.NEW,
            id="without its hash, in parts",
        ),
        pytest.param(
            found(NEW, content_sha256="", etag=None),
            ["create", "find", "put"],
            Put.NEW,
            id="no ETag",
        ),
        pytest.param(
            found(NEW, path_sha256=""),
            ["create", "find", "put"],
            Put.NEW,
            id="another program's, of the same content",
        ),
        pytest.param(
            found(NEW, path_sha256="0" * 64),
            ["create", "find", "put"],
            Put.NEW,
            id="another path's of the same key, of the same content",
        ),
        pytest.param(
            found(OTHER, stored_at="2026-02-03T04:20:00Z"),
            ["create", "find", "put"],
            Put.NEW,
            id="one from the future does not stop one that is new now",
        ),
    ],
)
def test_what_is_asked(there: StoredObject | None, asked: list[str], outcome: Put) -> None:
    store = ScriptedStore(there)
    assert Dedup(store).put(KEY, NEW, NOW) is outcome
    assert store.asked == asked


def test_what_was_stored_in_the_last_minute_is_not_asked_for() -> None:
    store = ScriptedStore()
    dedup = Dedup(store)
    assert dedup.put(KEY, NEW, NOW) is Put.NEW
    assert dedup.put(KEY, NEW, NOW) is Put.SAME
    assert store.asked == ["create"]


def test_an_image_that_changed_within_a_minute_is_put_at_once() -> None:
    store = ScriptedStore()
    dedup = Dedup(store)
    dedup.put(KEY, OTHER, NOW)
    assert dedup.put(KEY, NEW, NOW) is Put.NEW
    assert store.asked == ["create", "put"]


def test_another_path_of_the_same_key_is_put_though_its_content_was_just_stored() -> None:
    store = ScriptedStore()
    dedup = Dedup(store)
    dedup.put(KEY, NEW._replace(path_sha256="0" * 64), NOW)
    assert dedup.put(KEY, NEW, NOW) is Put.NEW
    assert store.asked == ["create", "put"]


def test_an_image_that_waited_does_not_replace_a_newer_one() -> None:
    store = ScriptedStore(found(OTHER, stored_at="2026-02-03T04:30:00Z"))
    assert Dedup(store).put(KEY, NEW, NOW + 3600) is Put.LATER
    assert store.asked == ["create", "find"]


def test_an_image_that_waited_replaces_an_older_one() -> None:
    store = ScriptedStore(found(OTHER, stored_at="2026-02-03T04:00:00Z"))
    assert Dedup(store).put(KEY, NEW, NOW + 3600) is Put.NEW
    assert store.asked == ["create", "find", "put"]


HOUR = "max-age=3600, public"


@pytest.mark.parametrize(
    ("cache_control", "stored_at", "outcome"),
    [
        # The picture came at 04:05:06.
        pytest.param(HOUR, "2026-02-03T03:35:07Z", Put.SAME, id="a second before half of it"),
        pytest.param(HOUR, "2026-02-03T03:35:06Z", Put.NEW, id="half of it"),
        pytest.param(HOUR, "2025-02-03T04:05:06Z", Put.NEW, id="over for long"),
        pytest.param(HOUR, "2026-02-03T04:05:06Z", Put.SAME, id="its own, from before a crash"),
        pytest.param(HOUR, "2026-02-03T05:05:06Z", Put.SAME, id="from the future"),
        pytest.param(HOUR, "2026-02-03T05:05:06+01:00", Put.NEW, id="not in UTC, as we have it"),
        pytest.param(
            "max-age=60, s-maxage=3600", "2026-02-03T03:35:07Z", Put.SAME, id="a shared cache's"
        ),
        pytest.param("no-cache", "2025-02-03T04:05:06Z", Put.SAME, id="without a lifetime"),
        pytest.param("max-age=0", "2025-02-03T04:05:06Z", Put.SAME, id="of no lifetime"),
        pytest.param("max-age=\u20ac", "2025-02-03T04:05:06Z", Put.SAME, id="what nobody can read"),
        pytest.param(None, "2025-02-03T04:05:06Z", Put.SAME, id="without the field"),
        pytest.param(HOUR, "", Put.NEW, id="the object's time is not known"),
        pytest.param(HOUR, "yesterday", Put.NEW, id="it is no time"),
        pytest.param(HOUR, "2026-02-03T04:05:06", Put.NEW, id="it is one without a zone"),
    ],
)
def test_the_same_image_is_put_again_when_half_of_its_lifetime_is_used_up(
    cache_control: str | None, stored_at: str, outcome: Put
) -> None:
    image = picture(b"new", cache_control=cache_control)
    store = ScriptedStore(found(image, stored_at=stored_at))
    assert Dedup(store, keeps_fresh=True).put(KEY, image, NOW) is outcome
    assert store.asked == ["create", "find", *(["put"] if outcome is Put.NEW else [])]


def test_the_same_image_is_put_again_where_the_object_does_not_prove_to_be_it() -> None:
    # printf new | md5sum
    etag = '"22af645d1859cb5ca6da0c484f1f37ea"'
    store = ScriptedStore(found(NEW, content_sha256="", etag=etag))
    assert Dedup(store, keeps_fresh=True).put(KEY, NEW, NOW) is Put.NEW
    assert store.asked == ["create", "find", "put"]


def test_an_object_that_nobody_reads_back_is_left_alone_however_old() -> None:
    store = ScriptedStore(found(NEW, stored_at="1999-02-03T04:05:06Z"))
    assert Dedup(store).put(KEY, NEW, NOW) is Put.SAME
    assert store.asked == ["create", "find"]


def test_what_was_put_again_is_not_asked_for_in_the_next_minute() -> None:
    store = ScriptedStore(found(NEW, stored_at="1999-02-03T04:05:06Z"))
    dedup = Dedup(store, keeps_fresh=True)
    assert dedup.put(KEY, NEW, NOW) is Put.NEW
    assert dedup.put(KEY, NEW, NOW) is Put.SAME
    assert store.asked == ["create", "find", "put"]


def test_no_more_keys_are_remembered_than_agreed() -> None:
    store = ScriptedStore()
    dedup = Dedup(store)
    for number in range(RECENT_ITEMS + 1):
        dedup.put(Key(f"{number:032x}"), NEW, NOW)
    store.asked.clear()
    dedup.put(Key(f"{1:032x}"), NEW, NOW)
    dedup.put(Key(f"{0:032x}"), NEW, NOW)
    assert store.asked == ["create"], "the first was forgotten, the second not"
