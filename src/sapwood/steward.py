"""What a supervisor does for one store: beats for its workers, takes back the jobs of the dead, tells of news."""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from msgspec import Struct

from sapwood.adapters.base import BaseAdapter
from sapwood.events import Events, WorkerRescued
from sapwood.lifecycle import Trace
from sapwood.maintenance import BeatWatch, rescue_dead
from sapwood.outage import Outage
from sapwood.page import Claim
from sapwood.timing import Timing, boot_time

_SETTLED_SECONDS = 15
"""A server may hold the last transaction of a killed worker so long: until then its row is looked for again."""


class Wards(Struct, frozen=True):
    """The workers that a supervisor answers for."""

    living: frozenset[str] = frozenset()
    """Those that are known to the store: they are beaten for."""

    starting: frozenset[str] = frozenset()
    """Those that are about to be."""


class Superior(ABC):
    """Whom a steward asks and tells. Called from its threads."""

    @abstractmethod
    def wards(self) -> Wards:
        """Return the workers to answer for."""

    @abstractmethod
    def is_hungry(self) -> bool:
        """Say whether any worker has nothing to do: without one there is nobody to tell of jobs."""

    @abstractmethod
    def beaten(self, began: float, known: frozenset[str], lost: frozenset[str]) -> None:
        """Hear of a good beat: when it was begun, which workers it was for, and which the store did not know."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Hear of a beat that failed."""

    @abstractmethod
    def news(self, queues: Collection[str], *, apart: bool) -> None:
        """Hear that queues have ready jobs, or with ``apart`` jobs that a death has set apart."""


class _Dead(Struct):
    worker: str
    notes: Mapping[Claim, Trace] | None
    until: float


class Steward:
    """Two threads for one store: one that beats, and does nothing else, and one for all other chores.

    Args:
        store: the store, opened by this process.
        timing: the times.
        poll_interval: seconds between two looks for jobs.
        events: told of rescues and failures.
        superior: asked for whom to answer, and told what comes of it.
    """

    def __init__(
        self,
        store: BaseAdapter,
        timing: Timing,
        *,
        poll_interval: float,
        events: Events,
        superior: Superior,
    ) -> None:
        self._store = store
        self._timing = timing
        self._poll_interval = poll_interval
        self._events = events
        self._superior = superior
        self._watch = BeatWatch(timing)
        self._dead: deque[_Dead] = deque()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._last = threading.Event()
        self._next_look = self._next_poll = 0.0
        self._passed_over = False
        self._threads = [
            threading.Thread(target=self._beat_on, name="sapwood-beat", daemon=True),
            threading.Thread(target=self._look_on, name="sapwood-chores", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def rescue(self, worker: str, notes: Mapping[Claim, Trace] | None) -> None:
        """Take back the jobs of a worker whose process has ended; may be called from any thread."""
        self._dead.append(_Dead(worker, notes, time.monotonic() + _SETTLED_SECONDS))
        self._woken.set()

    def look_again(self) -> None:
        """Hear that a worker has nothing to do: a wake-up that was passed over, for want of one, counts now."""
        if self._passed_over:
            self._woken.set()

    @property
    def is_done(self) -> bool:
        """Whether all jobs of the dead are taken back."""
        return not self._dead

    def stop(self, *, patience: float) -> None:
        """End; what is still to be taken back is waited for at most ``patience`` seconds."""
        self._last.set()
        self._woken.set()
        deadline = time.monotonic() + patience
        self._threads[1].join(max(0.0, deadline - time.monotonic()))
        self._stopped.set()
        self._woken.set()
        self._threads[0].join(1)

    # --- beats ------------------------------------------------------------------------------------------------------

    def _beat_on(self) -> None:
        outage = Outage("beat", self._events, most=self._timing.beat)
        while not self._stopped.is_set():
            began = boot_time()
            try:
                asked = self._superior.wards().living
                known = self._store.beat(asked)
            except Exception as error:  # noqa: BLE001 - whatever ails the store, the next beat may be good
                wait = outage.failed(error)
                self._superior.failed(error)
                self._stopped.wait(wait)
            else:
                outage.ended()
                self._watch.beaten(at=boot_time())
                self._superior.beaten(began, known, asked - known)
                self._stopped.wait(max(0.0, self._timing.beat - (boot_time() - began)))

    # --- chores -----------------------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        outage = Outage("look", self._events)
        end: Callable[[], None] | None = None
        while not self._stopped.is_set() and not (self._last.is_set() and self.is_done):
            self._woken.clear()
            try:
                end = end or self._store.listen(self._woken.set)
                self._turn()
                outage.ended()
            except Exception as error:  # noqa: BLE001 - as above
                self._stopped.wait(outage.failed(error))
                continue
            # A row that cannot be had yet is looked for again soon.
            rest = min(0.05, self._poll_interval) if self._dead else self._next_poll - time.monotonic()
            self._woken.wait(max(0.0, rest))
        if end is not None:
            with suppress(Exception):
                end()

    def _turn(self) -> None:
        self._rescue_reported()
        if self._last.is_set():
            return
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._timing.look
            wards = self._superior.wards()
            mine = wards.living | wards.starting
            for worker, records in rescue_dead(self._store, self._watch, mine=mine, clock=boot_time):
                self._events.emit(WorkerRescued(worker, tuple(records)))
        polls = time.monotonic() >= self._next_poll
        if polls:
            self._next_poll = time.monotonic() + self._poll_interval
            while self._store.promote() and not self._dead:
                pass
            self._tell(apart=True)
        # Whoever is busy looks for itself when it has done: under load, not every commit needs a look from here.
        self._passed_over = not (polls or self._superior.is_hungry())
        if not self._passed_over:
            self._tell(apart=False)

    def _tell(self, *, apart: bool) -> None:
        queues = self._store.ready_queues(alone=apart)
        if queues:
            self._superior.news(queues, apart=apart)

    def _rescue_reported(self) -> None:
        """Take back the jobs of those whose end the supervisor has seen."""
        for dead in list(self._dead):
            records = self._store.rescue(dead.worker, notes=dead.notes)
            if records is not None:
                self._events.emit(WorkerRescued(dead.worker, tuple(records)))
            elif time.monotonic() < dead.until and self._may_come(dead.worker):
                continue
            self._dead.remove(dead)

    def _may_come(self, worker: str) -> bool:
        """Say whether the row is there, held by its last transaction. One that comes later is left to the look."""
        return worker in {record.id for record in self._store.workers()}
