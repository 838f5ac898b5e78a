"""What is said while a store fails: once when it begins, once a minute, once when it ends."""

from structlog.testing import capture_logs

from imgproxy_cache.core.breaker import Permission
from imgproxy_cache.errors import StoreError
from imgproxy_cache.uploads.outages import MOST_REASONS, Outages


def outages() -> Outages:
    return Outages(lambda: {"waiting": 3}, lambda: 0.0)


def failure(key: str = "0123", cause: str = "connection refused") -> StoreError:
    return StoreError(
        operation=f"put {key}",
        place="s3://images",
        cause=cause,
        hint="start it",
        kind="unreachable",
    )


def test_an_outage_has_a_line_at_its_beginning_and_one_at_its_end() -> None:
    with capture_logs() as lines:
        store = outages()
        for number in range(50):
            store.failed(failure(str(number)), was_probe=store.permission() is Permission.AS_PROBE)
        assert store.problem == str(failure("49"))
        assert store.succeeded()
        assert not store.succeeded()
    assert store.problem is None
    assert [line["event"] for line in lines] == [
        "upload.retried",
        "store.failed",
        "store.recovered",
    ]
    assert lines[1] == {
        "event": "store.failed",
        "log_level": "error",
        "message": f"{failure('2')}; images are kept until it is back",
        "place": "s3://images",
        "operation": "put 2",
        "cause": "connection refused",
        "hint": "start it",
        "kind": "unreachable",
        "waiting": 3,
    }


def test_failures_now_and_then_have_one_line_a_minute() -> None:
    with capture_logs() as lines:
        store = outages()
        for _ in range(50):
            store.failed(failure(), was_probe=False)
            store.succeeded()
    assert [line["event"] for line in lines] == ["upload.retried"]


def test_reasons_are_counted_without_their_keys_the_latest_first() -> None:
    store = outages()
    store.failed(failure("1"), was_probe=False)
    store.failed(failure("2"), was_probe=False)
    store.failed(failure("3", "AccessDenied"), was_probe=False)
    assert [(reason["text"], reason["count"]) for reason in store.reasons()] == [
        ("s3://images: AccessDenied: start it", 1),
        ("s3://images: connection refused: start it", 2),
    ]


def test_no_more_reasons_are_kept_than_agreed() -> None:
    store = outages()
    for number in range(3 * MOST_REASONS):
        store.failed(failure(cause=f"odd {number}"), was_probe=False)
    assert len(store.reasons()) == MOST_REASONS
