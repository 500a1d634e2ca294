"""A worker's page: a small mapped file in which it notes which of its claims were started and which have ended.

The notes outlive the process that wrote them, whatever killed it. Whoever proves the death reads the page, and so
knows which jobs were merely claimed (their try is given back) and which were running (one of them may be the cause).
"""

import mmap
import os
import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from sapwood.lifecycle import Trace

_HEADER = struct.Struct("<8sQQd")
_END = struct.Struct("<Qd")
_PARDONED_AT = 16
_MAGIC = b"sapwood2"
_SLOT = struct.Struct("<qq")
_DEADLINE = struct.Struct("<d")
_DEADLINE_AT = 24
_SLOT_SIZE = 32
_FREE, _STARTED, _ENDED_WELL, _ENDED_BADLY, _SUSPECTED = range(5)
_TRACES = {
    _STARTED: Trace.STARTED,
    _ENDED_WELL: Trace.ENDED_WELL,
    _ENDED_BADLY: Trace.ENDED_BADLY,
    _SUSPECTED: Trace.SUSPECTED,
}

_OLD_MAGIC = b"sapwood1"
_OLD_HEADER = struct.Struct("<8sQQ")
_OLD_SLOT_SIZE = 24
"""The page of the release before, which knew no time limits. On SQLite, workers of both may share a file."""

Claim = tuple[int, int]
"""``(id, lock_token)``: one claim of one job, and of no other."""


class Page:
    """The notes of one worker, written by its threads.

    Args:
        fd: a file opened for reading and writing, or -1 for notes that nobody else can read.
        slots: how many claims may be noted at once.
    """

    def __init__(self, fd: int, slots: int) -> None:
        size = _HEADER.size + slots * _SLOT_SIZE
        if fd >= 0:
            _reserve(fd, size)
        self._map = mmap.mmap(fd, size)
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, slots, 0, 0)
        # Both are changed by single operations that the interpreter does not interrupt, so threads need no lock.
        self._free = deque(range(_HEADER.size, size, _SLOT_SIZE))
        self._slots: dict[Claim, int] = {}

    def start(self, claim: Claim, *, deadline: float = 0) -> None:
        """Note that the job is about to run.

        Args:
            claim: the claim.
            deadline: when it must have ended, by :func:`sapwood.timing.boot_time`; 0 where it may take for ever.
        """
        at = self._free.popleft()
        # The kind is written last: a process killed between the two leaves a slot that counts as free.
        self._map[at : at + _SLOT.size] = _SLOT.pack(*claim)
        _DEADLINE.pack_into(self._map, at + _DEADLINE_AT, deadline)
        self._map[at + _SLOT.size] = _STARTED
        self._slots[claim] = at

    def relieve(self, claim: Claim) -> None:
        """Note that the job may take for ever from now on: what is limited of it is over."""
        _DEADLINE.pack_into(self._map, self._slots[claim] + _DEADLINE_AT, 0.0)

    def end(self, claim: Claim, *, well: bool) -> None:
        """Note that the job has ended, its outcome not yet written."""
        self._map[self._slots[claim] + _SLOT.size] = _ENDED_WELL if well else _ENDED_BADLY

    def clear(self, claims: Iterable[Claim]) -> None:
        """Forget claims whose outcome is written, or refused."""
        for claim in claims:
            at = self._slots.pop(claim, None)
            if at is not None:
                self._map[at + _SLOT.size] = _FREE
                self._free.append(at)

    def suspect(self, claims: Iterable[Claim]) -> None:
        """Note that the process is about to end because one of these, which run, has damaged it."""
        for claim in claims:
            at = self._slots.get(claim)
            if at is not None:
                self._map[at + _SLOT.size] = _SUSPECTED

    def pardon(self) -> None:
        """Note that the process is about to end on purpose: what it runs is not to blame, and keeps its try."""
        self._map[_PARDONED_AT] = 1

    def condemn(self, *, at: float) -> None:
        """Note, as :meth:`pardon` does, that the process is about to end: of what it runs, the overdue is to blame.

        Args:
            at: now. What must have ended by then has timed out; all else keeps its try.
        """
        _END.pack_into(self._map, _PARDONED_AT, 1, at)

    def close(self) -> None:
        """Unmap the file. The notes stay in it."""
        self._map.close()


def _reserve(fd: int, size: int) -> None:
    """Take the room on the disk now: to write into a hole of a full disk would end the process by SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.pwrite(fd, bytes(size), 0)


def pardon(fd: int) -> None:
    """Note in another process's page that it is about to be ended on purpose."""
    if os.fstat(fd).st_size > _PARDONED_AT:
        os.pwrite(fd, b"\1", _PARDONED_AT)


def condemn(fd: int, *, at: float) -> None:
    """Note in another process's page that it is about to be ended for its overdue jobs; see :meth:`Page.condemn`."""
    if os.fstat(fd).st_size >= _HEADER.size and os.pread(fd, len(_MAGIC), 0) == _MAGIC:
        # By one write: nobody finds a half of it.
        os.pwrite(fd, _END.pack(1, at), _PARDONED_AT)


def read_page(fd: int) -> Mapping[Claim, Trace] | None:
    """Return what the page in an open file says, None where the file holds no whole page.

    In the page of a process that was ended on purpose, what had started counts as not started; but if it was ended
    for the sake of what was overdue, that has timed out.
    """
    page = _read(fd)
    if page is None:
        return None
    notes = {}
    for claim, kind, deadline in page.slots:
        trace = _TRACES.get(kind)
        if trace is Trace.STARTED and page.pardoned:
            trace = Trace.TIMED_OUT if 0 < deadline <= page.ended_at else None
        if trace is not None:
            notes[claim] = trace
    return notes


def first_deadline(fd: int) -> float | None:
    """Return when the first of the jobs that run must have ended, by the page in an open file; None for never."""
    page = _read(fd)
    slots = page.slots if page is not None else ()
    return min((deadline for _, kind, deadline in slots if kind == _STARTED and deadline > 0), default=None)


class _Read(Struct, frozen=True):
    """A page, as it was read."""

    pardoned: bool
    ended_at: float
    slots: Sequence[tuple[Claim, int, float]]


def _read(fd: int) -> _Read | None:
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    if len(data) >= _HEADER.size and data.startswith(_MAGIC):
        _, slots, pardoned, ended_at = _HEADER.unpack_from(data)
        begin, size = _HEADER.size, _SLOT_SIZE
    elif len(data) >= _OLD_HEADER.size and data.startswith(_OLD_MAGIC):
        _, slots, pardoned = _OLD_HEADER.unpack_from(data)
        ended_at, begin, size = 0.0, _OLD_HEADER.size, _OLD_SLOT_SIZE
    else:
        return None
    if len(data) != begin + slots * size:
        return None
    found = []
    for at in range(begin, len(data), size):
        kind = data[at + _SLOT.size]
        if kind != _FREE:
            deadline = _DEADLINE.unpack_from(data, at + _DEADLINE_AT)[0] if size == _SLOT_SIZE else 0.0
            found.append((_SLOT.unpack_from(data, at), kind, deadline))
    return _Read(bool(pardoned), ended_at, found)
