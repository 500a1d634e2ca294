"""A worker's page: a small mapped file in which it notes which of its claims were started and which have ended.

The notes outlive the process that wrote them, whatever killed it. Whoever proves the death reads the page, and so
knows which jobs were merely claimed (their try is given back) and which were running (one of them may be the cause).
"""

import mmap
import os
import struct
from collections import deque
from collections.abc import Iterable, Mapping

from sapwood.lifecycle import Trace

_HEADER = struct.Struct("<8sQQ")
_PARDONED_AT = 16
_MAGIC = b"sapwood1"
_SLOT = struct.Struct("<QQ")
_SLOT_SIZE = 24
_FREE, _STARTED, _ENDED_WELL, _ENDED_BADLY = range(4)
_TRACES = {_STARTED: Trace.STARTED, _ENDED_WELL: Trace.ENDED_WELL, _ENDED_BADLY: Trace.ENDED_BADLY}

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
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, slots, 0)
        # Both are changed by single operations that the interpreter does not interrupt, so threads need no lock.
        self._free = deque(range(_HEADER.size, size, _SLOT_SIZE))
        self._slots: dict[Claim, int] = {}

    def start(self, claim: Claim) -> None:
        """Note that the job is about to run."""
        at = self._free.popleft()
        # The kind is written last: a process killed between the two leaves a slot that counts as free.
        self._map[at : at + _SLOT.size] = _SLOT.pack(*claim)
        self._map[at + _SLOT.size] = _STARTED
        self._slots[claim] = at

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

    def pardon(self) -> None:
        """Note that the process is about to end on purpose: what it runs is not to blame, and keeps its try."""
        self._map[_PARDONED_AT] = 1

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
    if os.fstat(fd).st_size >= _HEADER.size:
        os.pwrite(fd, b"\1", _PARDONED_AT)


def read_page(fd: int) -> Mapping[Claim, Trace] | None:
    """Return what the page in an open file says, None where the file holds no whole page.

    In the page of a process that was ended on purpose, what had started counts as not started.
    """
    header = os.pread(fd, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return None
    magic, slots, pardoned = _HEADER.unpack(header)
    body = os.pread(fd, os.fstat(fd).st_size, _HEADER.size)
    if magic != _MAGIC or len(body) != slots * _SLOT_SIZE:
        return None
    notes = {}
    for at in range(0, len(body), _SLOT_SIZE):
        trace = _TRACES.get(body[at + _SLOT.size])
        if trace is not None and not (pardoned and trace is Trace.STARTED):
            notes[_SLOT.unpack_from(body, at)] = trace
    return notes
