"""A real SMTP server on this machine, with one mailbox that is busy twice before it accepts."""

import collections
import socket

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

BUSY = "busy@example.org"


class Mailbox:
    def __init__(self) -> None:
        self.received: list[str] = []
        self.refused: collections.Counter[str] = collections.Counter()

    async def handle_RCPT(  # noqa: N802 - the server's own name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address == BUSY and self.refused[address] < 2:  # noqa: PLR2004 - twice, as said above
            self.refused[address] += 1
            return "450 4.2.1 mailbox busy, try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.received.extend(envelope.rcpt_tos)
        return "250 Message accepted"


def serve(mailbox: Mailbox) -> Controller:
    """Start the server on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    return controller
