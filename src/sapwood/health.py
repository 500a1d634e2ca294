"""Telling whoever asks whether a supervisor lives and is ready: systemd by its socket, others by HTTP."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from sapwood.errors import ConfigurationError
from sapwood.supervisor import Supervisor

ALIVE_SECONDS = 10.0
"""A supervisor whose main loop has not turned for so long is not alive."""

_PATIENCE = 5
"""Seconds that a caller may take to ask."""


class ServiceManager:
    """Speaks the protocol of systemd's ``sd_notify``, where the environment names a socket for it."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._pulse = _pulse(environ)
        self._next_pulse = 0.0
        self._said: set[str] = set()

    def told(self, supervisor: Supervisor) -> None:
        """Say what is new: it is ready, it stops, it lives."""
        if not self._address:
            return
        if supervisor.is_ready:
            self._once("READY=1")
        if supervisor.is_stopping:
            self._once("STOPPING=1")
        now = time.monotonic()
        if self._pulse and now >= self._next_pulse:
            self._next_pulse = now + self._pulse
            self._send("WATCHDOG=1")

    def _once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._send(message)

    def _send(self, message: str) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            sender.sendto(message.encode(), self._address)


def _pulse(environ: Mapping[str, str]) -> float:
    """Return the seconds between two signs of life, half of what systemd waits for; 0 where it waits for none."""
    meant_for = environ.get("WATCHDOG_PID", "")
    span = environ.get("WATCHDOG_USEC", "")
    if not span.isdecimal() or (meant_for and meant_for != str(os.getpid())):
        return 0.0
    return int(span) / 2_000_000


class _Server(ThreadingTCPServer):
    """Serves HTTP like the one of the standard library, which first asks for the name of its address: that can hang."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


class Probe:
    """Answers ``GET /live`` and ``GET /ready`` with 200 or 503 and a line of JSON, and nothing else.

    Args:
        host: the address to listen on.
        port: the port, 0 for any that is free.

    Raises:
        ConfigurationError: it cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self._turned = time.monotonic()
        self._ready: dict[str, Any] = {"ready": False, "obstacles": ["it has only just begun"]}
        answers: Mapping[str, Callable[[], tuple[bool, dict[str, Any]]]] = {
            "/live": self._live,
            "/ready": self._is_ready,
        }

        class Handler(BaseHTTPRequestHandler):
            server_version = "sapwood"
            sys_version = ""
            timeout = _PATIENCE

            def do_GET(self) -> None:
                answer = answers.get(self.path.partition("?")[0])
                if answer is None:
                    self._send(HTTPStatus.NOT_FOUND, {"paths": list(answers)})
                    return
                good, told = answer()
                self._send(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, told)

            def _send(self, status: HTTPStatus, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode() + b"\n"
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: a probe comes every few seconds."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot answer probes on {host}:{port}", why=error.strerror or str(error), mend="choose another port"
            ) from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="sapwood-probe", daemon=True).start()

    def told(self, supervisor: Supervisor) -> None:
        """Remember how it stands."""
        self._turned = time.monotonic()
        self._ready = {"ready": supervisor.is_ready, "obstacles": list(supervisor.obstacles)}

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def _live(self) -> tuple[bool, dict[str, Any]]:
        seconds = time.monotonic() - self._turned
        return seconds < ALIVE_SECONDS, {"live": seconds < ALIVE_SECONDS, "seconds": round(seconds, 3)}

    def _is_ready(self) -> tuple[bool, dict[str, Any]]:
        return bool(self._ready["ready"]) and self._live()[0], self._ready
