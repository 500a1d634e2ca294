"""A network that fails at the worst moment: a TCP proxy that cuts a connection around its COMMIT."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import make_url

COMMIT = b"COMMIT"
FENCE = b"FOR UPDATE"


class Cutting:
    """Passes everything on to a database server, until it is told to cut.

    ``cut`` is for the next COMMIT that a client sends, once:

    * ``"lost"``: it never arrives, and the server finds the connection gone;
    * ``"done"``: it arrives and is answered, but the answer is lost;
    * ``"late"``: the client is cut off, and it arrives only when somebody waits for the row that it is about.
    """

    def __init__(self, url: str) -> None:
        there = make_url(url)
        self._there = (there.host or "127.0.0.1", there.port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        here = there.set(host="127.0.0.1", port=self._listening.getsockname()[1])
        # What is encrypted cannot be looked for.
        if here.get_backend_name() == "postgresql":
            here = here.update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
        self.url = here.render_as_string(hide_password=False)
        self.cut: str | None = None
        self.cuts = 0
        self._fenced = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        """End all connections."""
        _closed(self._listening)
        self._fenced.set()
        for each in list(self._sockets):
            _closed(each)
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._there)
                self._sockets |= {client, server}
                replies = _Replies(client, server)
                self._start(self._pass_on, client, server, replies)
                self._start(replies.pass_on)

    def _pass_on(self, client: socket.socket, server: socket.socket, replies: "_Replies") -> None:
        with suppress(OSError):
            while sent := client.recv(65536):
                if FENCE in sent:
                    self._fenced.set()
                cut, self.cut = (self.cut, None) if COMMIT in sent else (None, self.cut)
                if cut is not None:
                    self._cut(cut, sent, client, server, replies)
                    break
                server.sendall(sent)
        _closed(client)
        _closed(server)

    def _cut(self, how: str, sent: bytes, client: socket.socket, server: socket.socket, replies: "_Replies") -> None:
        self.cuts += 1
        replies.swallow()
        if how == "late":
            self._fenced.clear()
            _closed(client)
            self._fenced.wait(60)
        if how != "lost":
            server.sendall(sent)
            replies.swallowed.wait(60)


class _Replies:
    """Passes on what a server answers, or swallows it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client = client
        self._server = server
        self._swallows = False
        self.swallowed = threading.Event()

    def swallow(self) -> None:
        """Pass on nothing more."""
        self._swallows = True

    def pass_on(self) -> None:
        """Pass on."""
        with suppress(OSError):
            while answer := self._server.recv(65536):
                if self._swallows:
                    self.swallowed.set()
                else:
                    self._client.sendall(answer)
        if not self._swallows:
            _closed(self._client)


def _closed(sock: socket.socket) -> None:
    # To close alone would not wake a thread that reads from it.
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
