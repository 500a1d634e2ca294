"""The chores of a worker that has no supervisor: who is dead, and what becomes of their jobs."""

import time
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from sapwood.adapters.base import BaseAdapter
from sapwood.errors import StoreError
from sapwood.record import JobRecord, WorkerRecord


class Timing(Struct, frozen=True, kw_only=True):
    """How often a worker shows that it lives, and how long others believe it without. All in seconds."""

    beat: float = 10
    """A beat is raised this often."""

    look: float = 10
    """The dead are looked for this often."""

    fence: float = 40
    """A worker whose last good beat began longer ago starts nothing: by the time that others take its jobs, what it
    started before is the most that can still run. Shorter than ``rescue``, and counted from an earlier moment."""

    rescue: float = 60
    """A beat that stood still this long, seen by one observer, proves a death where the kernel cannot."""

    gap: float = 20
    """An observer whose own beats had a longer gap was frozen or cut off itself, and begins to watch anew."""


def boot_time() -> float:
    """Return seconds on a clock that nobody sets and that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class BeatWatch:
    """Tells whose beat stands still, by this process's own clock alone. No two clocks are ever compared."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._seen: dict[str, tuple[int, float]] = {}
        self._own_beat: float | None = None

    def beaten(self, *, at: float) -> None:
        """Note that our own beat was written."""
        if self._own_beat is not None and at - self._own_beat > self._timing.gap:
            self._seen.clear()
        self._own_beat = at

    def still(self, workers: Sequence[WorkerRecord], *, at: float) -> Sequence[WorkerRecord]:
        """Return those whose beat has not risen for the whole time that proves a death."""
        if self._own_beat is None or at - self._own_beat > self._timing.gap:
            self._seen.clear()
            return ()
        seen = {}
        for worker in workers:
            beat, since = self._seen.get(worker.id, (worker.beat, at))
            seen[worker.id] = (beat, since) if beat == worker.beat else (worker.beat, at)
        self._seen = seen
        return [worker for worker in workers if at - seen[worker.id][1] >= self._timing.rescue]


def rescue_dead(
    adapter: BaseAdapter, watch: BeatWatch, *, me: str, at: float
) -> Sequence[tuple[str, Sequence[JobRecord]]]:
    """Take back the jobs of every worker that is proven dead, and those that run under no worker at all.

    Returns:
        For each dead worker its id and its jobs as they now are; the orphans come under the id ``""``.
    """
    others = [worker for worker in adapter.workers() if worker.id != me]
    still = {worker.id for worker in watch.still(others, at=at)}
    found = []
    for worker in others:
        dead = adapter.is_dead(worker)
        records = None
        # One that cannot be taken back now must not keep the others waiting: another look will come.
        with suppress(StoreError):
            if dead:
                records = adapter.rescue(worker.id, notes=adapter.notes(worker))
            elif dead is None and worker.id in still:
                records = adapter.rescue(worker.id, beat=worker.beat)
        if records is not None:
            found.append((worker.id, records))
    orphans = adapter.sweep()
    return [*found, ("", orphans)] if orphans else found
