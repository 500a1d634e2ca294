"""What a supervisor and its workers say to each other, over a pair of sockets."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

import msgspec
from msgspec import Struct

from sapwood.plan import WorkerPlan
from sapwood.timing import Timing

# --- the supervisor says ----------------------------------------------------------------------------------------------


class Welcome(Struct, tag=True, frozen=True, kw_only=True):
    """The first message: who you are, and what to do."""

    id: str
    supervisor: str
    parent: int
    page: int
    """The descriptor of the file for the worker's notes."""

    app: str
    plan: WorkerPlan
    timing: Timing
    shutdown_timeout: float
    tended: bool
    """The supervisor beats for you, and tells you of jobs. Otherwise you look after yourself."""

    quiet: bool
    verbose: int


class Beaten(Struct, tag=True, frozen=True):
    """The store has taken a beat for you that was begun at this moment, by the clock of this host."""

    began: float


class Wake(Struct, tag=True, frozen=True):
    """There may be jobs for you."""


class Stop(Struct, tag=True, frozen=True):
    """Claim nothing more, finish what runs, and end."""


class Quiet(Struct, tag=True, frozen=True):
    """Claim nothing more, and stay."""


# --- a worker says ----------------------------------------------------------------------------------------------------


class Ready(Struct, tag=True, frozen=True):
    """I am known to the store, and about to claim."""


class Hungry(Struct, tag=True, frozen=True):
    """I found fewer jobs than I could run: wake me when there are more."""


class More(Struct, tag=True, frozen=True):
    """I found all the jobs that I could run: there may be more, for others."""


class Running(Struct, frozen=True):
    """A job that runs."""

    id: int
    job: str
    seconds: float


class Report(Struct, tag=True, frozen=True):
    """What I am at."""

    running: Sequence[Running]
    done: int
    failed: int


class Unusable(Struct, tag=True, frozen=True):
    """I cannot work at all, and why: there will be no use in trying again before something is mended."""

    why: str


class Ended(Struct, tag=True, frozen=True):
    """I end in good order: nothing runs, all is written, the store has forgotten me."""


Message = Welcome | Beaten | Wake | Stop | Quiet | Ready | Hungry | More | Report | Unusable | Ended

_LONGEST = 1 << 20
"""No message has so many bytes."""

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class Garbled(Exception):
    """What came is no message: the other end is not, or no longer, what it should be."""


class Link:
    """One end. Messages are lines of JSON.

    Args:
        end: a connected socket. One that does not block drops messages that the other end does not take: a frozen
            worker must not hold up its supervisor.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = Lock()
        self._read = b""

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Send a message, if the other end is still there."""
        line = msgspec.json.encode(message) + b"\n"
        with self._lock, suppress(OSError):
            self._end.sendall(line)

    def receive(self) -> list[Message] | None:
        """Return what has come, or None where the other end is gone.

        Raises:
            TimeoutError: nothing came within the socket's time-out.
            Garbled: what came is no message.
        """
        try:
            data = self._end.recv(65_536)
        except TimeoutError:
            raise
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._read = (self._read + data).split(b"\n")
        if len(self._read) > _LONGEST:
            raise Garbled
        try:
            return [_decoder.decode(line) for line in lines]
        except (msgspec.DecodeError, RecursionError) as error:
            raise Garbled from error

    def patient(self, seconds: float | None) -> None:
        """Wait so long for messages, None for ever."""
        self._end.settimeout(seconds)

    def close(self) -> None:
        """Close this end."""
        self._end.close()
