"""Threads that are woken as seldom as possible, and never too seldom."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from imgproxy_cache.threads import Threads

SECONDS = 20.0


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0)


def told(threads: Threads[int, int], count: int) -> list[int]:
    """What has come of so many."""
    ended: list[int] = []

    def are_all_told() -> bool:
        ended.extend(threads.ended())
        return len(ended) >= count

    until(are_all_told)
    return ended


def test_all_is_done_in_order_and_told_once() -> None:
    begun: list[int] = []

    def double(item: int) -> int:
        begun.append(item)
        return 2 * item

    threads = Threads(double, 1, name="test")
    for item in range(100):
        threads.give(item)
    assert begun == [], "nothing begins before they are woken"
    threads.wake()
    assert told(threads, 100) == [2 * item for item in range(100)]
    assert begun == list(range(100))
    threads.close()


def test_as_many_work_at_once_as_agreed_and_one_wakes_the_other() -> None:
    gate = threading.Semaphore(0)
    begun: list[int] = []

    def wait(item: int) -> int:
        begun.append(item)
        gate.acquire()
        return item

    threads = Threads(wait, 3, name="test")
    for item in range(5):
        threads.give(item)
    threads.wake()
    until(lambda: len(begun) == 3)
    assert sorted(begun) == [0, 1, 2]
    gate.release()
    until(lambda: len(begun) == 4)
    assert len(told(threads, 1)) == 1
    gate.release(4)
    assert len(told(threads, 4)) == 4
    assert sorted(begun) == [0, 1, 2, 3, 4]
    threads.close()


@pytest.mark.parametrize("most", [1, 2, 8])
def test_what_is_given_at_the_moment_when_a_thread_lies_down_is_done(most: int) -> None:
    threads: Threads[int, int] = Threads(lambda item: item, most, name="test")
    for count in [1, 2, 3, 1, 5] * 100:
        for item in range(count):
            threads.give(item)
        threads.wake()
        assert sorted(told(threads, count)) == list(range(count))
    threads.close()


def test_it_is_told_when_all_that_was_given_is_begun() -> None:
    threads: Threads[int, int] = Threads(lambda item: item, 2, name="test")
    called: list[int] = []
    for item in range(20):
        threads.give(item)
    threads.call_when_dry(lambda: called.append(1))
    threads.wake()
    until(lambda: called)
    assert len(told(threads, 20)) == 20
    threads.close()


def test_who_wants_to_know_is_told_after_each_has_ended() -> None:
    told: list[int] = []
    threads: Threads[int, int] = Threads(
        lambda item: item, 2, name="test", tell_ended=lambda: told.append(1)
    )
    for item in range(20):
        threads.give(item)
    threads.wake()
    until(lambda: len(told) == 20)
    assert sorted(threads.ended()) == list(range(20))
    threads.close()


def test_after_the_end_nothing_begins_and_no_thread_is_left() -> None:
    gate = threading.Event()
    begun: list[int] = []
    workers: list[threading.Thread] = []

    def wait(item: int) -> None:
        workers.append(threading.current_thread())
        begun.append(item)
        gate.wait()

    threads = Threads(wait, 2, name="test")
    for item in range(10):
        threads.give(item)
    threads.wake()
    until(lambda: len(begun) == 2)
    threads.close()
    gate.set()
    until(lambda: not any(worker.is_alive() for worker in workers))
    assert list(threads.ended()) == [], "nobody wants to know"
    assert sorted(begun) == [0, 1]


HANGING = """
import threading
from imgproxy_cache.threads import Threads
begun = threading.Event()
threads = Threads(lambda item: begun.set() or threading.Event().wait(), 1, name="test")
threads.give(1)
threads.wake()
begun.wait()
threads.close()
"""


def test_work_that_hangs_keeps_no_process_alive() -> None:
    assert subprocess.run([sys.executable, "-c", HANGING], check=False, timeout=20).returncode == 0
