"""uvicorn's server, told that it is to stop instead of looking ten times a second."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import uvicorn

# How old the Date of an answer may be where uvicorn gives it.
TICK_SECONDS = 1.0


class AskedServer(uvicorn.Server):
    """Serves until :meth:`stop`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._is_asked = asyncio.Event()

    def stop(self) -> None:
        """Stop accepting, finish what is under way, end; called in the event loop."""
        self.should_exit = True
        self._is_asked.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._is_asked.wait()
