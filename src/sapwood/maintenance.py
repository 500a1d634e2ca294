"""What keeps workers alive and finds the dead: proofs of life, and what becomes of a dead worker's jobs."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from threading import Lock

from sapwood.adapters.base import BaseAdapter
from sapwood.errors import StoreError
from sapwood.events import Events, WorkerRescued
from sapwood.page import Page
from sapwood.record import JobRecord, WorkerRecord
from sapwood.timing import Timing, Trust, boot_time


class BeatWatch:
    """Tells whose beat stands still, by this process's own clock alone. No two clocks are ever compared.

    One thread may beat while another looks.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._lock = Lock()
        self._seen: dict[str, tuple[int, float]] = {}
        self._own_beat: float | None = None

    def beaten(self, *, at: float) -> None:
        """Note that our own beat was written."""
        with self._lock:
            if self._own_beat is not None and at - self._own_beat > self._timing.gap:
                self._seen.clear()
            self._own_beat = at

    def still(self, workers: Sequence[WorkerRecord], *, at: float) -> Sequence[WorkerRecord]:
        """Return those whose beat has not risen for the whole time that proves a death.

        Args:
            workers: the others, as they were read.
            at: a moment after that: nobody's beat may seem to have stood still for longer than it did.
        """
        with self._lock:
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
    adapter: BaseAdapter, watch: BeatWatch, *, mine: Collection[str], clock: Callable[[], float]
) -> Sequence[tuple[str, Sequence[JobRecord]]]:
    """Take back the jobs of every worker that is proven dead, and those that run under no worker at all.

    Args:
        adapter: the store.
        watch: what the caller has seen of the beats so far.
        mine: ids of workers whose life the caller answers for itself.
        clock: tells the moment, as :func:`boot_time` does.

    Returns:
        For each dead worker its id and its jobs as they now are; the orphans come under the id ``""``.
    """
    others = [worker for worker in adapter.workers() if worker.id not in mine]
    still = {worker.id for worker in watch.still(others, at=clock())}
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


class Keeper(ABC):
    """Sees to one worker's life: who it is, where it notes its claims, what proves that it lives, news of jobs."""

    takes_apart: bool = True
    """Whether the worker, when idle, also runs jobs that a death has set apart."""

    only_apart: bool = False
    """Whether it runs such jobs only, one by one."""

    is_replaced: bool = False
    """Whether another worker process follows when this one ends."""

    look: float = 10
    """Seconds between two rounds of :meth:`chores`."""

    @abstractmethod
    def identity(self) -> tuple[str, str | None, str | None]:
        """Return the worker's id, its name, and the id of its supervisor."""

    @abstractmethod
    def page(self, worker: str, *, slots: int) -> Page:
        """Return the page for its notes."""

    @abstractmethod
    def registered(self, worker: str, *, began: float) -> None:
        """Note that its row is there; ``began`` is when that was begun, by :func:`boot_time`."""

    @abstractmethod
    def is_trusted(self) -> bool:
        """Say whether the last good beat is recent enough that nobody can have taken the worker's jobs."""

    @abstractmethod
    def chores(self, worker: str) -> bool:
        """Do what is due besides jobs; False where the worker was declared dead."""

    @abstractmethod
    def promote(self) -> bool:
        """Make due jobs ready, where that falls to this worker; True where there may be more."""

    @abstractmethod
    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when jobs may have become ready; return a function that ends it."""

    def claimed(self, *, all_found: bool) -> None:  # noqa: B027 - only a supervisor wants to know
        """Hear what a claim came to: it took all that was ready, or there may be more."""

    def descriptors(self) -> Collection[int]:
        """Return what must stay open in this process, besides what the store says."""
        return ()

    def watch(self, look: Callable[[], None], end: Callable[[], object]) -> None:  # noqa: B027 - see below
        """Call ``look`` about once a second, from a thread of its own, and ``end`` before it ends the process.

        Only one can do so that waits for nothing else.
        """

    def lost(self) -> None:  # noqa: B027 - it may simply go on
        """Hear that the worker was declared dead. Whoever returns lets it go on under a new id."""


class StandAlone(Keeper):
    """A worker that nobody looks after does so itself, and looks for dead others."""

    def __init__(self, adapter: BaseAdapter, timing: Timing, events: Events) -> None:
        self.look = min(timing.beat, timing.look)
        self._adapter = adapter
        self._events = events
        self._watch = BeatWatch(timing)
        self._trust = Trust(timing, boot_time())

    def identity(self) -> tuple[str, str | None, str | None]:
        """Return a random id: nobody can mistake one start of a worker for another."""
        return uuid.uuid4().hex, None, None

    def page(self, worker: str, *, slots: int) -> Page:
        """Return the page that the store keeps, or one that dies with this process."""
        return self._adapter.page(worker, slots=slots) or Page(-1, slots)

    def registered(self, worker: str, *, began: float) -> None:
        """Count from when the registration was begun."""
        del worker
        self._trust.beaten(began)

    def is_trusted(self) -> bool:
        """Compare the last good beat with the fence."""
        return self._trust.holds(at=boot_time())

    def chores(self, worker: str) -> bool:
        """Beat, and take back the jobs of the dead."""
        began = boot_time()
        if not self._adapter.beat([worker]):
            return False
        self._trust.beaten(began)
        self._watch.beaten(at=boot_time())
        for dead, records in rescue_dead(self._adapter, self._watch, mine={worker}, clock=boot_time):
            self._events.emit(WorkerRescued(dead, tuple(records)))
        return True

    def promote(self) -> bool:
        """Promote a chunk; the next one comes with the next turn, after claims and beats."""
        return self._adapter.promote() > 0

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Hear it from the store."""
        return self._adapter.listen(wake)
