"""What a client takes at once is written past its transport."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from imgproxy_cache.cycle import reset


class ClientSocket:
    """
    The :class:`~imgproxy_cache.tiers.Wire` to a client.

    Only for as long as its transport has nothing left to write: what the client does not take
    at once is left to that.
    """

    __slots__ = ("_descriptor", "_send", "_socket", "_transport", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        below = transport.get_extra_info("socket")
        self._descriptor = below.fileno()
        self._socket = socket.socket(below.family, below.type, below.proto, self._descriptor)
        self._send = self._socket.send
        self._transport = transport
        self.write = transport.write
        """Through the transport, which has clients that read slowly share what is large."""

    def detach(self) -> None:
        """The transport closes the socket: to be called from `connection_lost`."""
        self._socket.detach()

    def send(self, data: bytes | bytearray) -> None:
        """All of an answer."""
        try:
            sent = self._send(data)
        except OSError:  # the client takes no more, or has gone: the transport sees it below
            sent = 0
        if sent < len(data):
            self.write(memoryview(data)[sent:])

    def send_file(self, head: bytes, descriptor: int, at: int, size: int) -> None:
        """A head, and so many bytes of a file: what the client takes at once is not copied."""
        head_sent = sent = 0
        try:  # suppress() would take half a microsecond
            head_sent = self._send(head, socket.MSG_MORE if size else 0)
            if head_sent == len(head):
                sent = os.sendfile(self._descriptor, descriptor, at, size)
        except OSError:  # as above
            pass
        if sent < size or head_sent < len(head):
            self._leave_rest(head[head_sent:], descriptor, at + sent, size - sent)

    def _leave_rest(self, head: bytes, descriptor: int, at: int, size: int) -> None:
        rest = b""
        with suppress(OSError):
            rest = os.pread(descriptor, size, at)
        self.write(head + rest)
        if len(rest) < size:  # somebody has cut the file off, or the disk fails
            reset(self._transport)
