"""The hands of a worker: threads for synchronous jobs, one event loop for asynchronous ones, a limit over both."""

import asyncio
import contextlib
import contextvars
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from sapwood.adapters.base import Settlement
from sapwood.aside import aside, uninterrupted
from sapwood.executor import Executor, failure_of
from sapwood.ground import Ground
from sapwood.isolation import Isolation
from sapwood.lifecycle import Failed, Outcome, Retried, Snoozed
from sapwood.limit import Limit, ThreadLimit
from sapwood.marking import PAUSE, Marker
from sapwood.page import Claim, Page
from sapwood.record import JobRecord
from sapwood.timing import Timing
from sapwood.watch import Watch
from sapwood.wording import story

LAST_SECONDS = 5.0
"""What jobs have left behind on an event loop is given this many seconds to be cancelled."""

MOST_UNWRITTEN = 1000
"""With so many outcomes unwritten nothing new is started: a crash would repeat them all."""

_log = logging.getLogger("sapwood")


class Ended(Struct, frozen=True):
    """A run that is over."""

    settlement: Settlement
    seconds: float
    """How long it took."""

    at: float
    """When it ended, by ``time.monotonic``."""


class _Waiting(Struct, frozen=True):
    record: JobRecord
    is_async: bool
    since: float


class Pool:
    """Starts claimed jobs in the order they were fed, at most ``concurrency`` at once.

    A record waits here until one atomic step takes it: a slot that starts it, or :meth:`take_back`. What was taken
    back was never started.

    Args:
        executor: runs one job.
        concurrency: how many jobs run at once, on threads and on the event loop together.
        changed: called, from any thread, when a job has ended.
        is_trusted: whether what was claimed is still ours, as far as the worker knows: if not, nothing is started.
        marker: marks the jobs that may run only once; None where none does.
        stopping: what the jobs' ``context.stopping`` asks.
        isolation: runs those jobs that are a process of their own; without it, they run here.
        grace: seconds that a job may take to end once its time is over; ``changed`` is called too when it has not.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        concurrency: int,
        changed: Callable[[], None],
        stopping: Callable[[], bool],
        is_trusted: Callable[[], bool],
        grace: float = Timing().grace,
        marker: Marker | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self._executor = executor
        self._concurrency = concurrency
        self._changed = changed
        self._stopping = stopping
        self._is_trusted = is_trusted
        self._isolation = isolation
        self._watch = Watch(grace=grace, stuck=changed)
        self._marker = marker
        self._page = Page(-1, 0)
        self._ground: Ground | None = None
        self._damaged: Callable[[], None] = lambda: None
        self._lock = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._ended: deque[Ended] = deque()
        self._unwritten: set[Claim] = set()
        self._running: dict[Claim, JobRecord] = {}
        self._threads: list[threading.Thread] = []
        self._idle_threads = 0
        self._loops: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []
        self._pumping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many records have not been started."""
        return len(self._waiting)

    @property
    def in_hand(self) -> int:
        """How many records wait or run."""
        with self._lock:
            return len(self._waiting) + len(self._running)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, runs, or has an outcome that is not written."""
        with self._lock:
            return not (self._waiting or self._running or self._unwritten)

    @property
    def unwritten(self) -> int:
        """How many have ended and were not answered by :meth:`written`."""
        return len(self._unwritten)

    @property
    def oldest_end(self) -> float | None:
        """When the first of those ended, by ``time.monotonic``."""
        return self._ended[0].at if self._ended else None

    @property
    def longest_wait_since(self) -> float | None:
        """Since when the oldest record waits, by ``time.monotonic``."""
        with self._lock:
            return self._waiting[0].since if self._waiting else None

    def running(self) -> Sequence[JobRecord]:
        """Return the records that run now."""
        with self._lock:
            return list(self._running.values())

    def stuck(self) -> Sequence[JobRecord]:
        """Return the records that run and should have ended: their code cannot be stopped by itself."""
        claims = self._watch.stuck()
        return [record for record in self.running() if record.claim in claims] if claims else ()

    def held(self) -> set[Claim]:
        """Return the claims that wait, run, or have ended and were not collected."""
        with self._lock:
            records = [entry.record for entry in self._waiting]
            records += self._running.values()
            records += [ended.settlement.record for ended in self._ended]
        return {record.claim for record in records}

    def open_page(self, page: Page) -> None:
        """Note what is started from now on in ``page``. What runs already is noted where it was."""
        self._page = page

    def watch(self, ground: Ground | None, damaged: Callable[[], None]) -> None:
        """Start each job on level ground only.

        Args:
            ground: what the worker stands on, None to watch nothing any more.
            damaged: called, from the thread whose job has just ended, where that is no longer whole. Ends the process.
        """
        self._ground, self._damaged = ground, damaged

    def suspect(self) -> None:
        """Note of all that run that one of them has damaged this process. Every job is looked at when it ends."""
        with self._lock:
            self._page.suspect(self._running)

    @property
    def is_held_up(self) -> bool:
        """Whether nothing can start before what runs has ended, or has put back what it changed."""
        with self._lock:
            return bool(self._running) and not self._is_level()

    def resume(self) -> None:
        """Look again at what may start, now that the worker is trusted again."""
        with self._lock:
            self._nudge()

    def feed(self, records: Sequence[JobRecord]) -> None:
        """Take records to run."""
        since = time.monotonic()
        entries = [_Waiting(record, self._runs_on_loop(record), since) for record in records]
        with self._lock:
            self._waiting.extend(entries)
            self._nudge()

    def _runs_on_loop(self, record: JobRecord) -> bool:
        # For an isolated one a thread waits.
        return self._executor.is_async(record) and not self._is_isolated(record)

    def _is_isolated(self, record: JobRecord) -> bool:
        return self._isolation is not None and self._executor.is_isolated(record)

    def end_isolated(self) -> int:
        """End the processes of isolated jobs; return how many are not gone yet. Their jobs will have been released."""
        if self._isolation is None:
            return 0
        self._isolation.end()
        return self._isolation.running

    def take_back(self, *, waiting_since: float | None = None) -> Sequence[JobRecord]:
        """Take out the records that wait, or only those that do so since that moment or longer."""
        with self._lock:
            taken = []
            while self._waiting and (waiting_since is None or self._waiting[0].since <= waiting_since):
                taken.append(self._waiting.popleft().record)
            self._nudge()
            return taken

    def collect(self) -> Sequence[Ended]:
        """Take out what has ended."""
        with self._lock:
            ended = list(self._ended)
            self._ended.clear()
        return ended

    def written(self, claims: Collection[Claim]) -> None:
        """Forget claims whose outcomes are written, or refused."""
        self._page.clear(claims)
        with self._lock:
            self._unwritten.difference_update(claims)
            self._nudge()

    def close(self) -> None:
        """End the threads and the loop. Nothing may wait or run any more."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()
        for loop, _ in self._loops:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                loop.call_soon_threadsafe(loop.stop)
        deadline = time.monotonic() + LAST_SECONDS
        for _, thread in self._loops:
            # It cancels what jobs have left behind, which may refuse to end; the thread ends with the process.
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                _log.warning("a task that a job left behind on the event loop does not end; it is left alone")
        self._watch.close()

    # --- who starts the next record ---------------------------------------------------------------------------------

    def _may_start(self, *, on_loop: bool) -> bool:
        """Whether the record whose turn it is can start now, and here. Called with the lock held."""
        return (
            bool(self._waiting)
            and self._waiting[0].is_async == on_loop
            and self._is_trusted()
            and len(self._running) < self._concurrency
            and len(self._unwritten) < MOST_UNWRITTEN
            and self._is_level()
        )

    def _is_level(self) -> bool:
        """Whether a job finds the process as it should. Called with the lock held."""
        return self._ground is None or self._ground.is_level(alone=not self._running)

    def _nudge(self) -> None:
        """Wake whoever can start the record whose turn it is. Called with the lock held."""
        if self._may_start(on_loop=True):
            if not self._pumping:
                loop = self._running_loop()
                self._pumping = loop is not None
                if loop is not None:
                    loop.call_soon_threadsafe(self._pump)
        elif self._may_start(on_loop=False):
            if self._idle_threads:
                self._lock.notify()
            elif len(self._threads) < self._concurrency:
                self._start_thread()

    def _start_thread(self) -> None:
        name = f"sapwood-job-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system has no thread left: those that there are go on, and what waits too long is handed back.
            _log.exception("no further thread can be started")
        else:
            self._threads.append(thread)

    def _begin(self) -> JobRecord:
        """The atomic step: whoever does this owns the record. Called with the lock held."""
        record = self._waiting.popleft().record
        self._running[record.claim] = record
        self._nudge()
        return record

    def _end(self, ended: Ended) -> bool:
        """Take in what has ended; say whether the worker must hear of it. Called with the lock held."""
        record = ended.settlement.record
        del self._running[record.claim]
        self._ended.append(ended)
        self._unwritten.add(record.claim)
        self._nudge()
        # It hears of the first, and looks at the others when that one has lingered, unless nothing is left to run.
        return len(self._ended) == 1 or not self._waiting

    # --- threads ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        ended: Ended | None = None
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        while True:
            with self._lock:
                tell = ended is not None and self._end(ended)
                record = self._begin() if self._may_start(on_loop=False) else None
            if tell:
                self._changed()
            if record is None:
                record = self._next()
            if record is None:
                return
            ended = self._run(record)
            # What a job blocks, the children of the next job on this thread would not hear.
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _next(self) -> JobRecord | None:
        """Wait for a record; None at the end."""
        with self._lock:
            self._idle_threads += 1
            self._lock.wait_for(lambda: self._closed or self._may_start(on_loop=False))
            self._idle_threads -= 1
            return None if self._closed else self._begin()

    def _run(self, record: JobRecord) -> Ended:
        record, unmarked = self._marked(record)
        if unmarked is not None:
            return Ended(Settlement(record, unmarked), 0.0, time.monotonic())
        isolation = self._isolation if self._is_isolated(record) else None
        # The time of an isolated one is kept by who waits for it, and kept for certain.
        limit = ThreadLimit(None if isolation else self._executor.run_time(record))
        page, claim, began = self._note_start(record, limit)
        # A context of its own: what a job sets there is not for the next one on this thread.
        own = contextvars.Context()
        try:
            if isolation:
                outcome = own.run(isolation.run, record)
            else:
                outcome = own.run(self._executor.execute, record, stopping=self._stopping, limit=limit)
        except BaseException as error:  # noqa: BLE001 - a slot must not die, and a record not hang in it
            outcome = Failed(failure_of(error))
        self.look()
        return self._note_end(page, claim, began, Settlement(record, outcome))

    def look(self) -> None:
        """End the process where a job has closed or replaced what it stands on. Any thread may look.

        It is done before a job's end is noted: it may be the one to blame.
        """
        ground = self._ground
        # One that was let go meanwhile has closed its descriptors itself.
        if ground is not None and not ground.is_whole() and ground is self._ground:
            self._damaged()

    def _marked(self, record: JobRecord) -> tuple[JobRecord, Outcome | None]:
        """Mark a job that may run only once; return it as it then is, and its outcome where it must not run.

        It is noted as started only after that: killed before, it has not begun; killed after, the mark tells.
        """
        if self._marker is None or not self._marker.wants(record):
            return record, None
        outcome = self._marker.mark(record)
        return (record, outcome) if outcome is not None else (replace(record, started_at=datetime.now(UTC)), None)

    def _note_start(self, record: JobRecord, limit: Limit) -> tuple[Page, Claim, float]:
        page, claim = self._page, record.claim
        deadline = self._watch.begin(claim, limit)
        if deadline:
            limit.over = partial(self._relieve, page, claim)
        page.start(claim, deadline=deadline)
        return page, claim, time.monotonic()

    def _relieve(self, page: Page, claim: Claim) -> None:
        self._watch.end(claim)
        page.relieve(claim)

    def _note_end(self, page: Page, claim: Claim, began: float, settlement: Settlement) -> Ended:
        self._watch.end(claim)
        # Badly means that the try is spent, should the outcome be lost.
        page.end(claim, well=not isinstance(settlement.outcome, Retried | Failed))
        now = time.monotonic()
        return Ended(settlement, now - began, now)

    # --- the event loop ---------------------------------------------------------------------------------------------

    def _running_loop(self) -> asyncio.AbstractEventLoop | None:
        """Return a loop that jobs can rely on; None where the system has no thread for it."""
        if self._loops and not _is_spoilt(self._loops[-1][0]):
            return self._loops[-1][0]
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop_forever, args=(loop,), name="sapwood-loop", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            _log.exception("no thread can be started for the event loop")
            loop.close()
            return None
        # An earlier one goes on with what runs there.
        self._loops.append((loop, thread))
        return loop

    def _loop_forever(self, loop: asyncio.AbstractEventLoop) -> None:
        # The runner is here for its end: it cancels what jobs left behind and closes the loop.
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            while not self._closed:
                try:
                    runner.get_loop().run_forever()
                except BaseException as error:  # noqa: BLE001 - a task that a job left behind raised SystemExit
                    _log.error("a task that a job left behind broke the event loop, which goes on\n%s", story(error))

    def _pump(self) -> None:
        """Start, on the loop, what may start there."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if not self._may_start(on_loop=True):
                    self._pumping = False
                    return
                if _is_spoilt(loop):
                    self._pumping = False
                    self._nudge()
                    return
                record = self._begin()
            task = loop.create_task(self._arun(record), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _arun(self, record: JobRecord) -> None:
        ended = await self._arun_marked(record)
        with self._lock:
            tell = self._end(ended)
        if tell:
            self._changed()

    async def _arun_marked(self, record: JobRecord) -> Ended:
        if self._marker is not None and self._marker.wants(record):
            try:
                record, unmarked = await uninterrupted(aside(self._marked, record))
            except BaseException:  # noqa: BLE001 - no thread could be started; the outcome takes back a mark, if any
                unmarked = Snoozed(PAUSE)
            if unmarked is not None:
                return Ended(Settlement(record, unmarked), 0.0, time.monotonic())
        limit = Limit(self._executor.run_time(record))
        page, claim, began = self._note_start(record, limit)
        try:
            outcome = await self._executor.aexecute(record, stopping=self._stopping, limit=limit)
        except BaseException as error:  # noqa: BLE001 - as above
            outcome = Failed(failure_of(error))
        self.look()
        return self._note_end(page, claim, began, Settlement(record, outcome))


def _is_spoilt(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether a job has taken its threads from a loop: ``asyncio.to_thread`` would fail for all that follow."""
    executor = getattr(loop, "_default_executor", None)
    return bool(getattr(loop, "_executor_shutdown_called", False) or getattr(executor, "_shutdown", False))
