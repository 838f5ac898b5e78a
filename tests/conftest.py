"""What all tests may ask for."""

import gc
import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from hypothesis import settings

pytest_plugins = ["tests.servers.fixtures", "tests.skips"]
# How long an example takes is a matter of what else the machine does.
settings.register_profile("busy machine", settings(), deadline=None)
settings.load_profile("busy machine")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """The event loop that the product runs on: its transports differ from asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is in no cycle goes all the same."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def heeded_hangup() -> Iterator[None]:
    """What a test starts ends when its terminal does, even if these tests are run by `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def ignored_hangup() -> Iterator[None]:
    """What a test starts, it starts as `nohup` does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)
