"""Locks that the kernel keeps and lets go when a process ends, whatever ended it: who lives, and whose turn it is."""

import fcntl
import os
import random
import re
import stat
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sapwood.errors import UnsupportedStore
from sapwood.lifecycle import Trace
from sapwood.page import Claim, Page, condemn, first_deadline, pardon, read_page

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""An id that may name a file. One that comes from a row may be anything, such as the path of somebody's file."""

_own: dict[tuple[int, int], int] = {}
"""Device and inode of each lock file that this process holds, with its descriptor.

POSIX frees a process's locks on a file when it closes *any* handle of it: a file in this table is never opened again.
"""

# A forked child holds none of its parent's locks.
os.register_at_fork(after_in_child=_own.clear)


_tickets: "weakref.WeakSet[Ticket]" = weakref.WeakSet()


def _close_inherited() -> None:
    """Close a parent's tickets in its forked child, which would otherwise hold them when the parent is killed."""
    for ticket in tuple(_tickets):
        ticket.close()


os.register_at_fork(after_in_child=_close_inherited)


class WorkerLocks:
    """One locked file per living worker. Getting the lock of an existing file proves the death of its worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, worker: str) -> Path:
        """Return the file of a worker.

        Raises:
            FileNotFoundError: no worker is called so. An id that was read from a row may be anything, such as the path
                of somebody's file.
        """
        if not _PLAIN.fullmatch(worker):
            raise FileNotFoundError(f"no worker is called {worker!r}")
        return self._folder / worker

    def take(self, worker: str) -> None:
        """Lock the file of a worker of this process, for as long as it lives."""
        _make(self._folder)
        fd = os.open(self._file(worker), _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        # A prober may hold it for a moment: wait, it lets go at once.
        fcntl.lockf(fd, fcntl.LOCK_EX)
        _own[_identity(os.fstat(fd))] = fd

    def page(self, worker: str, *, slots: int) -> Page:
        """Return the page that lies in the locked file itself."""
        return Page(self.descriptor(worker), slots)

    def descriptor(self, worker: str) -> int:
        """Return the descriptor by which a worker of this process holds its lock."""
        return _own[_identity(self._file(worker).stat())]

    def pardon(self, worker: str) -> None:
        """Note in the file of another process's worker that it is ended on purpose."""
        with suppress(OSError), self._opened(worker) as fd:
            pardon(fd)

    def condemn(self, worker: str, *, at: float) -> None:
        """Note in the file of another process's worker that it is ended for what it has overdue."""
        with suppress(OSError), self._opened(worker) as fd:
            condemn(fd, at=at)

    def first_deadline(self, worker: str) -> float | None:
        """Return when the first of the jobs that another process's worker runs must have ended, None for never."""
        with suppress(OSError), self._opened(worker) as fd:
            return first_deadline(fd)
        return None

    @contextmanager
    def _opened(self, worker: str) -> Iterator[int]:
        """Open the file of another process's worker; raises OSError where there is none, or where it is our own."""
        path = self._file(worker)
        if _identity(path.stat()) in _own:
            raise PermissionError(path)
        fd = os.open(path, _FLAGS)
        try:
            yield fd
        finally:
            os.close(fd)

    def let_go(self, worker: str) -> None:
        """Remove a worker's file, be it ours or a dead one's."""
        with suppress(FileNotFoundError):
            path = self._file(worker)
            identity = _identity(path.stat())
            path.unlink()
            if identity in _own:
                os.close(_own.pop(identity))

    def is_dead(self, worker: str) -> bool | None:
        """Return True where the lock could be had, False where a process holds it, None where there is no file."""
        if not _PLAIN.fullmatch(worker):
            # Nobody lives under such an id, and no file is touched on the word of a row.
            return True
        try:
            path = self._file(worker)
            if _identity(path.stat()) in _own:
                return False
            fd = os.open(path, _FLAGS)
        except OSError:
            return None
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(fd)

    def notes(self, worker: str) -> Mapping[Claim, Trace] | None:
        """Return what a dead worker noted in its file."""
        try:
            fd = os.open(self._file(worker), _FLAGS)
        except OSError:
            return None
        try:
            return read_page(fd)
        finally:
            os.close(fd)


class Ticket:
    """Whose turn it is to write, among processes.

    SQLite's own waiting starves: a process that writes in a loop takes the lock again before the others have woken
    (8 writers of 2 ms: one did 1,375 transactions while another did 1). Two locks make a queue of it: ``turn`` is held
    while writing, and ``next`` by the one who waits for it, so that the last writer cannot overtake.

    It only makes waiting fair. Whoever has waited ``patience`` seconds goes on without it, since a frozen process
    may hold it for ever; SQLite's own lock keeps the data safe.
    """

    def __init__(self, folder: Path, *, patience: float = 10.0) -> None:
        _make(folder)
        self._next = os.open(folder / "next.ticket", _FLAGS | os.O_CREAT, 0o600)
        self._turn = os.open(folder / "turn.ticket", _FLAGS | os.O_CREAT, 0o600)
        self._patience = patience
        _tickets.add(self)

    @contextmanager
    def held(self, patience: float | None = None) -> Iterator[None]:
        """Wait for the turn, at most ``patience`` seconds if those are fewer than usual; pass it on at the end."""
        deadline = time.monotonic() + min(self._patience, patience or self._patience)
        # Several wait for `next`, so they look seldom; one waits for `turn`, so it may look often.
        waiting = _locked(self._next, deadline, pause=0.002)
        _locked(self._turn, deadline, pause=0.0001)
        if waiting:
            fcntl.flock(self._next, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        _tickets.discard(self)
        for fd in (self._next, self._turn):
            with suppress(OSError):
                os.close(fd)


def _make(folder: Path) -> None:
    """Make the folder for its owner alone; one that is there must not be for all.

    Raises:
        UnsupportedStore: others could put files there that are taken for ours.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    owners = {0, os.geteuid()}
    with suppress(FileNotFoundError):
        # Several users may share a database: one of them made the folder first.
        owners.add(folder.with_suffix("").stat().st_uid)
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWOTH or status.st_uid not in owners:
        raise UnsupportedStore(
            f"{folder} is not a folder of this user",
            why="whoever can write there could have workers taken for dead, or for alive",
            mend=f"chmod o-w {folder}, or remove it while no worker runs",
        )


def _locked(fd: int, deadline: float, *, pause: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(pause * random.random())  # noqa: S311 - a spread, not a secret
        else:
            return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
