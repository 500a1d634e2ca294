"""What a worker stands on: the parts of its process that a job can damage, or shift, under its neighbours' feet.

A descriptor that a job has closed may be given to another file at any moment, and what is written to it then lands
there: a worker whose descriptors are no longer its own must end before it writes again. A setting of the whole process
can be put back; but only while nothing runs, since a job may have changed it for a moment of its own.
"""

import io
import locale
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

DAMAGED = 70
"""The exit code of a worker whose descriptors were closed or replaced (EX_SOFTWARE)."""

_STANDARD = (0, 1, 2)
_STREAMS = ("stdin", "stdout", "stderr")
_LIMITS = ("AS", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK")
_LOOK_SECONDS = 0.1
"""While jobs run, what is dear to ask is asked this often."""

_log = logging.getLogger("sapwood")


class _Setting(Struct, frozen=True):
    """A setting of the whole process."""

    name: str
    has_shifted: Callable[[], bool]
    put_back: Callable[[], bool]
    """Put it back as far as this process can; say whether it is as it was."""


class Ground:
    """Remembers how things are when a worker begins, and sees that each of its jobs finds them so.

    Args:
        descriptors: what the worker keeps open for as long as it lives. The standard ones count too.
    """

    is_spoilt = False
    """Something cannot be put back: it is time for a fresh process."""

    def __init__(self, descriptors: Collection[int]) -> None:
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        watched = {fd: _identity_of(fd) for fd in sorted({*_STANDARD, *descriptors, self._home})}
        self._descriptors = [(fd, identity) for fd, identity in watched.items() if identity is not None]
        self._streams = [(name, getattr(sys, name)) for name in _STREAMS]
        self._directory = _directory(self._home)
        self._others = [_umask(), _recursion(), _locale(), *filter(None, map(_limit, _LIMITS))]
        self._next_look = 0.0
        self._is_uneven = False
        self._told: set[str] = set()

    def is_whole(self) -> bool:
        """Say whether the descriptors are still those of the beginning."""
        return all(_identity_of(fd) == identity for fd, identity in self._descriptors)

    def is_level(self, *, alone: bool) -> bool:
        """Say whether a job may start here.

        Args:
            alone: nothing runs: whatever has shifted is put back now.
        """
        self._open_streams()
        if alone:
            self._put_back()
            return True
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._is_uneven = any(setting.has_shifted() for setting in self._others)
        return not (self._is_uneven or self._directory.has_shifted())

    def close(self) -> None:
        """Watch no more."""
        with suppress(OSError):
            os.close(self._home)

    def _put_back(self) -> None:
        for setting in (self._directory, *self._others):
            if setting.has_shifted():
                self._tell(setting.name)
                if not setting.put_back():
                    self.is_spoilt = True
        for name, stream in self._streams:
            if getattr(sys, name) is not stream:
                setattr(sys, name, stream)
        self._is_uneven = False

    def _tell(self, name: str) -> None:
        if name not in self._told:
            self._told.add(name)
            _log.warning(
                "a job has left %s changed, which is put back – a job that needs it otherwise runs alone"
                " – concurrency=1, or put it back in the job",
                name,
            )

    def _open_streams(self) -> None:
        """Open a standard stream anew that a job has closed: whoever prints next is innocent."""
        for at, (name, stream) in enumerate(self._streams):
            if stream is not None and stream.closed:
                # The log may hold the closed one.
                self.is_spoilt = True
                with suppress(OSError):
                    anew = io.FileIO(at, "r" if name == "stdin" else "w", closefd=False)
                    text = io.TextIOWrapper(anew, errors="backslashreplace", write_through=True)
                    self._streams[at] = (name, text)
                    setattr(sys, name, text)
                    setattr(sys, f"__{name}__", text)
                    self._tell(f"sys.{name}")


def _identity_of(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _directory(home: int) -> _Setting:
    """The working directory, found again even where it was renamed."""
    at_first = _identity_of(home)

    def has_shifted() -> bool:
        try:
            status = os.stat(".")  # noqa: PTH116 - asked for each job
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != at_first

    def put_back() -> bool:
        try:
            os.fchdir(home)
        except OSError:
            return False
        return True

    return _Setting("the working directory", has_shifted, put_back)


def _umask() -> _Setting:
    at_first = os.umask(0o077)
    os.umask(at_first)
    status = Path("/proc/self/status")

    def has_shifted() -> bool:
        # To ask for it otherwise is to change it, for all that runs.
        try:
            lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            return False
        return any(line.startswith("Umask:") and int(line.split()[1], 8) != at_first for line in lines)

    def put_back() -> bool:
        os.umask(at_first)
        return True

    return _Setting("the umask", has_shifted, put_back)


def _recursion() -> _Setting:
    """A limit that was raised harms nobody, and a module that was imported late may need it."""
    at_first = sys.getrecursionlimit()

    def put_back() -> bool:
        sys.setrecursionlimit(at_first)
        return True

    return _Setting("the recursion limit", lambda: sys.getrecursionlimit() < at_first, put_back)


def _locale() -> _Setting:
    at_first = locale.setlocale(locale.LC_ALL)

    def put_back() -> bool:
        try:
            locale.setlocale(locale.LC_ALL, at_first)
        except locale.Error:
            return False
        return True

    return _Setting("the locale", lambda: locale.setlocale(locale.LC_ALL) != at_first, put_back)


def _limit(name: str) -> _Setting | None:
    """A limit that the system sets to the process; None where it knows no such limit."""
    kind: int | None = getattr(resource, f"RLIMIT_{name}", None)
    if kind is None:
        return None
    at_first = resource.getrlimit(kind)

    def put_back() -> bool:
        _, hard = resource.getrlimit(kind)
        wanted: Sequence[tuple[int, int]] = (at_first, (at_first[0], hard), (hard, hard))
        for limits in wanted:
            with suppress(ValueError, OSError):
                resource.setrlimit(kind, limits)
                return limits[0] == at_first[0]
        return False

    return _Setting(f"the limit RLIMIT_{name}", lambda: resource.getrlimit(kind)[0] != at_first[0], put_back)
