"""A TCP proxy that treats connections as bad networks do, between workers and a database server."""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import make_url

_COMMIT = re.compile(rb"(Q....COMMIT\0|.{3}\0\x03COMMIT)\Z", re.DOTALL)
"""The message by which a client commits, which comes alone: PostgreSQL's simple query, or MariaDB's COM_QUERY."""

_CHUNK = 65_536


class Proxy:
    """Passes on what clients and a server say, from a thread of its own; and, when told to, does not.

    Args:
        url: where the server is. :attr:`url` is the same, through the proxy.
        host: the address to listen on.
    """

    def __init__(self, url: str, *, host: str = "127.0.0.1") -> None:
        server = make_url(url)
        self._server = (server.host or "127.0.0.1", server.port)
        self.commits_cut = 0
        self._cuts_left = 0
        self._torn = False
        self._delay = 0.0
        self._trickles = False
        self._refuses = False
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._listening = self._call(asyncio.start_server(self._accepted, host, 0))
        port = self._listening.sockets[0].getsockname()[1]
        self.url = server.set(host=host, port=port).render_as_string(hide_password=False)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    # --- what a network does ----------------------------------------------------------------------------------------

    def reset(self) -> int:
        """Cut every connection at once, on both sides, by RST; return how many."""
        return self._each(_Link.reset)

    def half_close(self) -> int:
        """End one direction of every connection, the server's for one half of them and the clients' for the other."""
        return self._each(_Link.half_close)

    def stall(self) -> None:
        """Take what is sent and pass on nothing; new connections are taken, and hear nothing."""
        self._do(self._flows.clear)

    def flow(self) -> None:
        """Pass on again, what has waited too; at full speed, to whoever connects."""

        def flow() -> None:
            self._delay, self._trickles, self._refuses, self._cuts_left = 0.0, False, False, 0
            self._flows.set()

        self._do(flow)

    def forget(self) -> int:
        """Never again pass anything on for connections that are open, and never say so; new ones are good."""
        return self._each(_Link.forget)

    def delay(self, seconds: float) -> None:
        """Hold every piece back for so long."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def trickle(self) -> None:
        """Pass on byte by byte."""
        self._do(lambda: setattr(self, "_trickles", True))

    def refuse(self) -> int:
        """Cut every connection, and each new one at once."""
        self._do(lambda: setattr(self, "_refuses", True))
        return self.reset()

    def cut_commits(self, count: int, *, torn: bool = False) -> None:
        """Cut the next connections that commit, so many times, after COMMIT was sent and before its reply came back.

        The server has committed by then; with ``torn`` nobody knows, since its side is cut in the same moment.
        """

        def cut() -> None:
            self._cuts_left, self._torn = count, torn

        self._do(cut)

    def close(self) -> None:
        """End."""
        self._listening.close()
        self.flow()
        self.reset()
        self._call(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- in the loop ------------------------------------------------------------------------------------------------

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _do(self, act: Callable[[], Any]) -> Any:
        async def done() -> Any:
            return act()

        return self._call(done())

    def _each(self, act: Callable[["_Link"], None]) -> int:
        def all_of_them() -> int:
            links = list(self._links)
            for link in links:
                act(link)
            return len(links)

        return int(self._do(all_of_them))

    async def _ended(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _cut(writer)
            return
        try:
            theirs = await asyncio.open_connection(*self._server)
        except OSError:
            _cut(writer)
            return
        link = _Link(self, (reader, writer), theirs, number=len(self._links))
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            link.reset()

    async def pass_on(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        """Send a piece as the network is now."""
        if self._delay:
            await asyncio.sleep(self._delay)
        await self._flows.wait()
        pieces: Iterable[bytes] = (bytes([byte]) for byte in piece) if self._trickles else (piece,)
        for part in pieces:
            writer.write(part)
            await writer.drain()

    def cuts(self, piece: bytes) -> bool:
        """Say whether this is a COMMIT whose reply is to be lost."""
        if not self._cuts_left or not _COMMIT.search(piece):
            return False
        self._cuts_left -= 1
        self.commits_cut += 1
        return True

    @property
    def is_torn(self) -> bool:
        """Whether a cut hits both sides in the same moment."""
        return self._torn


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream, *, number: int) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._number = number
        self._is_forgotten = False
        self._shut: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        """Pass on until both directions have ended, or one is cut."""
        directions = [
            asyncio.ensure_future(self._pump(self._client[0], self._server[1], from_client=True)),
            asyncio.ensure_future(self._pump(self._server[0], self._client[1], from_client=False)),
        ]
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await asyncio.gather(*directions)
        finally:
            for direction in directions:
                direction.cancel()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool) -> None:
        while piece := await reader.read(_CHUNK):
            if self._is_forgotten or writer in self._shut:
                continue
            cut = from_client and self._proxy.cuts(piece)
            await self._proxy.pass_on(piece, writer)
            if cut:
                await self._lose_the_reply()
        if not self._is_forgotten:
            self._shut_down(writer)

    async def _lose_the_reply(self) -> None:
        if not self._proxy.is_torn:
            # The other direction reads the reply, and passes it on to nobody.
            _cut(self._client[1])
            await asyncio.sleep(5)
        raise ConnectionResetError

    def reset(self) -> None:
        """Cut both sides."""
        _cut(self._client[1])
        _cut(self._server[1])

    def forget(self) -> None:
        """Swallow all that comes from now on."""
        self._is_forgotten = True

    def half_close(self) -> None:
        """End one direction, and leave the other."""
        self._shut_down((self._client, self._server)[self._number % 2][1])

    def _shut_down(self, writer: asyncio.StreamWriter) -> None:
        if writer not in self._shut and not writer.is_closing():
            self._shut.add(writer)
            with suppress(OSError):
                writer.write_eof()


def _cut(writer: asyncio.StreamWriter) -> None:
    """Close at once, by RST and not by FIN."""
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
