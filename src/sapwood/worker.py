"""The worker: claims jobs, has them run, and writes what came of them. One loop, one adapter, any number of slots."""

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType, MappingProxyType
from typing import NoReturn

from msgspec import Struct

from sapwood._version import __version__
from sapwood.adapters.base import Exchange, Settlement
from sapwood.app import Sapwood
from sapwood.errors import ConfigurationError, StoreError
from sapwood.events import (
    CodeChanged,
    JobFenced,
    JobsAbandoned,
    JobsReleased,
    JobStuck,
    StoreFailed,
    WorkerFenced,
    WorkerStarted,
    WorkerStopped,
)
from sapwood.executor import Executor, failure_of
from sapwood.ground import DAMAGED, Ground
from sapwood.host import OVERRUN, resident_memory, stacks_on_quit
from sapwood.isolation import Isolation
from sapwood.lifecycle import Cancelled, Failed, Released, Retried, Succeeded
from sapwood.maintenance import Keeper, StandAlone
from sapwood.marking import Marker
from sapwood.outage import Outage
from sapwood.page import Claim, Page
from sapwood.pool import MOST_UNWRITTEN, Ended, Pool
from sapwood.record import JobRecord, WorkerRecord
from sapwood.sources import Sources
from sapwood.timing import Timing, boot_time

AHEAD = 0.1
"""A worker claims ahead what it will likely finish in this many seconds."""

HAND_BACK = 0.2
"""What has waited this many seconds unstarted is handed back, for others."""

LINGER = 0.005
"""An outcome waits this many seconds for company while other jobs are at hand to run."""

_LAST_LOOK = 0.02
_LAST_WORDS = 0.7
"""At the end of its time a worker may take so many seconds to write what has just come to an end."""

_SAMPLES = 100
_KNOWN = 10
_MOST_AHEAD = MOST_UNWRITTEN
_PAGE_SLACK = 100
_MEMORY_LOOK = 1.0

_ALARMS = (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)
"""What a timer sends that any thread may set, and that ends the process where nobody takes it."""

_log = logging.getLogger("sapwood")


class Tally(Struct):
    """What a worker's jobs came to."""

    succeeded: int = 0
    retried: int = 0
    """Failed tries that will be followed by another."""

    failed: int = 0
    """Failed for good."""

    cancelled: int = 0
    postponed: int = 0
    """Neither: snoozed, or of a class that is not loaded here."""

    @property
    def total(self) -> int:
        """How many runs there were."""
        return self.succeeded + self.retried + self.failed + self.cancelled + self.postponed


class Limits(Struct, frozen=True, kw_only=True):
    """When a worker is to make room for a fresh one. Looked at between jobs."""

    max_jobs: int | None = None
    """So many runs."""

    max_memory: int | None = None
    """So many bytes of resident memory."""

    max_runtime: float | None = None
    """Seconds that a run may take where its class does not say it, None for ever."""

    shutdown_timeout: float = 25
    """Seconds that running jobs are given to finish once the worker was told to stop."""


class Worker:
    """Works off the jobs of one adapter. Without a keeper it looks after itself and after dead workers' jobs.

    Args:
        app: the application.
        adapter: the name of the adapter whose jobs it takes.
        queues: the queues it takes them from, None for all.
        concurrency: how many jobs run at once.
        poll_interval: seconds between two looks when nothing wakes it. Wake-ups only make it quicker.
        timing: how often it beats and looks for the dead.
        limits: when it ends to make room for a fresh one, and how long it waits for running jobs when it stops.
        keeper: what looks after it; by default it does so itself.

    Raises:
        UnknownAdapter: the app has no adapter of that name.
        UnknownQueue: the app declares its queues, and not that one.
        ConfigurationError: ``concurrency`` or ``poll_interval`` make no sense.
    """

    _stopping = False
    _stop_by: float | None = None
    """Until when running jobs may go on, once it stops."""

    _told_abandoned = False
    _drain_by: float | None = None
    """Until when other jobs may go on, where one cannot be stopped: then the process ends."""

    _told_stuck: frozenset[Claim] = frozenset()
    _quiet = False
    _page: Page | None = None
    has_process_to_itself = False
    """Nothing else is done in its process: it may put settings back that jobs have changed, and end it when damaged."""

    _ground: Ground | None = None
    _handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]] = MappingProxyType({})
    _owns_process = False
    """It has the main thread: nobody else needs this process once it has stopped."""

    _next_poll = _next_chores = _next_memory_look = 0.0

    def __init__(
        self,
        app: Sapwood,
        *,
        adapter: str = "default",
        queues: Sequence[str] | None = None,
        concurrency: int = 5,
        poll_interval: float = 0.5,
        timing: Timing | None = None,
        limits: Limits | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        if concurrency < 1 or poll_interval <= 0:
            raise ConfigurationError(
                "a worker needs concurrency >= 1 and poll_interval > 0", mend="leave them at their defaults"
            )
        for queue in queues or ():
            app.check_queue(queue)
        self.tally = Tally()
        self._app = app
        self._adapter = app.adapter(adapter)
        self._adapter_name = adapter
        self._queues = None if queues is None else tuple(queues)
        self._concurrency = concurrency
        self._poll_interval = poll_interval
        self._limits = limits or Limits()
        self._keeper = keeper or StandAlone(self._adapter, timing or app.timing, app.events)
        self._timing = timing or app.timing
        self._bell = _Bell()
        self._sources = Sources()
        self._pool = self._new_pool()
        self._ahead = LookAhead(concurrency)
        self._unsettled: list[Settlement] = []
        self._unsure = False
        self._woken = True
        self._found_all = False
        self._store_back_at = 0.0
        self._outage = Outage("work", app.events)
        self._alone = False
        self._me: WorkerRecord

    # --- from outside -----------------------------------------------------------------------------------------------

    def run(self) -> Tally:
        """Work until stopped; then finish what runs, write every outcome, and return the tally.

        In the main thread SIGINT and SIGTERM stop it: the first lets running jobs finish; a second ends the process
        at once, and another worker takes the jobs back.
        """
        return self._work(until_empty=False)

    def workoff(self) -> Tally:
        """Work until nothing is ready; then return the tally. Jobs that are not due are left."""
        return self._work(until_empty=True)

    def stop(self) -> None:
        """Claim nothing more, and let :meth:`run` return when what runs has finished. May be called from anywhere."""
        self._stopping = True
        self._bell.ring()

    def quiet(self) -> None:
        """Claim nothing more, and go on living: what runs may finish. May be called from anywhere."""
        self._quiet = True
        self._bell.ring()

    def running(self) -> Sequence[JobRecord]:
        """Return the jobs that run now."""
        return self._pool.running()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _work(self, *, until_empty: bool) -> Tally:
        self._app.load()
        self._sources.note()
        try:
            with self._signals(), self._registered(), self._listening():
                while not self._finished(until_empty=until_empty):
                    self._bell.wait(self._rest())
                    self._turn()
                # While its row is there: what jobs have left behind may take seconds to end, and who has no row
                # counts as dead.
                self._pool.close()
        finally:
            self._pool.close()
            # It may be used again.
            self._pool, self._stopping, self._found_all, self._woken = self._new_pool(), False, False, True
            self._quiet, self._stop_by, self._told_abandoned = False, None, False
            self._drain_by, self._told_stuck = None, frozenset()
        return self.tally

    def _new_pool(self) -> Pool:
        executor = Executor(self._app, max_runtime=self._limits.max_runtime, adapter=self._adapter_name)
        grace = self._timing.grace
        return Pool(
            executor,
            concurrency=self._concurrency,
            changed=self._bell.ring,
            stopping=lambda: self._stopping,
            is_trusted=self._keeper.is_trusted,
            grace=grace,
            marker=Marker(self._adapter, self._app.events),
            isolation=Isolation(
                self._app, executor, adapter=self._adapter_name, grace=grace, stopping=lambda: self._stopping
            ),
        )

    def _finished(self, *, until_empty: bool) -> bool:
        if self._unsettled or not self._pool.idle:
            return False
        return self._stopping or (until_empty and self._found_all and not self._woken)

    def _turn(self) -> None:
        """Do what is due: hand back, settle and claim, chores."""
        now = time.monotonic()
        self._pool.look()
        if self._stopping:
            self._see_to_the_end(now)
        self._see_to_the_stuck(now)
        if not self._keeper.is_trusted():
            # Cut off for too long: what was not started is no longer ours to start. Rescue or a later look has it.
            self._pool.take_back()
            self._pool.end_isolated()
        if now < self._store_back_at:
            return
        try:
            if now >= self._next_chores:
                self._do_chores()
                now = time.monotonic()
                self._next_chores = now + self._keeper.look
            if now >= self._next_poll or self._woken:
                self._next_poll = now + self._poll_interval
                self._woken = False
                self._found_all = False
                self._woken = self._keeper.promote()
            self._hand_back(now)
            if self._exchange_is_due(time.monotonic()):
                self._exchange()
        except Exception as error:  # noqa: BLE001 - a worker outlives whatever its store does
            self._store_failed(error)
        # Not only after a claim: one that has had all its runs claims no more.
        if not self._stopping and self._is_spent():
            self.stop()

    def _rest(self) -> float:
        """Return the seconds until something is due, if nothing wakes the worker before."""
        now = time.monotonic()
        due = [self._next_poll, self._next_chores]
        oldest_end = self._pool.oldest_end
        if oldest_end is not None:
            due.append(oldest_end + LINGER if self._pool.waiting else now)
        if self._unsettled or self._woken:
            due.append(now)
        if self._stop_by is not None and not self._told_abandoned:
            due.append(self._stop_by if now < self._stop_by else now + _LAST_LOOK)
        if self._drain_by is not None:
            due.append(self._drain_by if now < self._drain_by else now + _LAST_LOOK)
        waiting_since = self._pool.longest_wait_since
        if waiting_since is not None:
            due.append(waiting_since + HAND_BACK)
        return max(0.0, min(due) - now, self._store_back_at - now)

    # --- settle and claim -------------------------------------------------------------------------------------------

    def _wanted(self) -> int:
        """Return how many jobs to claim: the free slots, and what can be claimed ahead."""
        if self._is_closed:
            return 0
        in_hand = self._pool.in_hand
        if self._keeper.only_apart:
            return int(in_hand == 0)
        if self._alone:
            self._alone = in_hand > 0
        if self._alone or self._pool.unwritten >= MOST_UNWRITTEN or self._pool.is_held_up:
            return 0
        room = self._concurrency + self._ahead.jobs() - in_hand
        if self._limits.max_jobs is not None:
            # No more than it may still run: what is claimed may start before this worker can stop.
            room = min(room, self._limits.max_jobs - self.tally.total - in_hand - self._pool.unwritten)
        return max(0, room)

    @property
    def _is_closed(self) -> bool:
        """Whether it takes no further jobs."""
        return self._stopping or self._quiet or self._drain_by is not None

    def _exchange_is_due(self, now: float) -> bool:
        oldest_end = self._pool.oldest_end
        if self._unsettled or (oldest_end is not None and (not self._pool.waiting or now >= oldest_end + LINGER)):
            return True
        if self._found_all:
            return False
        # Claim again when half of what could be in hand is gone, not for each slot that falls free.
        return 2 * self._wanted() > self._ahead.jobs()

    def _exchange(self) -> None:
        """Write the outcomes at hand and claim as many jobs as are wanted, in one transaction."""
        wanted = self._wanted()
        self._gather(self._pool.collect())
        settlements = self._unsettled
        try:
            answer = self._adapter.exchange(
                self._me.id, settlements, queues=self._queues, limit=wanted, alone=self._keeper.only_apart
            )
        except StoreError:
            # The claim may be at fault: what is done must not wait for it. The reply to it may be lost, too.
            self._unsure = True
            if settlements:
                self._answered(settlements, self._adapter.settle(self._me.id, settlements))
            raise
        except Exception:
            self._unsure = True
            self._settle_one_by_one()
            raise
        self._outage.ended()
        self._answered(settlements, answer.settled)
        if not answer.alive:
            self._begin_anew()
            return
        self._take(answer, wanted)

    def _is_spent(self) -> bool:
        """Say whether it is time for a fresh worker."""
        limits = self._limits
        if self._ground is not None and self._ground.is_spoilt and self._keeper.is_replaced:
            return True
        if limits.max_jobs is not None and self.tally.total >= limits.max_jobs:
            return True
        if limits.max_memory is None or time.monotonic() < self._next_memory_look:
            return False
        self._next_memory_look = time.monotonic() + _MEMORY_LOOK
        return resident_memory() > limits.max_memory

    def _take(self, answer: Exchange, wanted: int) -> None:
        self._found_all = len(answer.claimed) < wanted
        self._feed(answer.claimed)
        if wanted:
            self._keeper.claimed(all_found=self._found_all)
        if self._unsure:
            # Only now: what this very answer brought is in our hands.
            self._resolve()
            self._unsure = False
        takes_apart = self._keeper.takes_apart and not self._keeper.only_apart
        if wanted and takes_apart and self._found_all and not self._pool.in_hand:
            # Idle, and nothing else is ready: a job that a death has set apart may run now, with no neighbours.
            apart = self._adapter.claim(self._me.id, queues=self._queues, limit=1, alone=True).claimed
            self._alone = bool(apart)
            self._found_all = not apart
            self._feed(apart)

    def _feed(self, records: Sequence[JobRecord]) -> None:
        if records:
            self._ahead.claimed(records)
            self._pool.feed(records)

    def _gather(self, ended: Sequence[Ended]) -> None:
        for end in ended:
            record = end.settlement.record
            if end.settlement.is_written:
                self._count(end.settlement)
                self._ahead.ran(record.queue, end.seconds)
                self._pool.written([record.claim])
            elif record.locked_by == self._me.id:
                self._unsettled.append(end.settlement)
                self._ahead.ran(record.queue, end.seconds)
            else:
                self._app.events.emit(JobFenced(record))
                self._pool.written([record.claim])

    def _answered(self, settlements: Sequence[Settlement], written: frozenset[int]) -> None:
        """Every outcome is answered: it was written, or refused because the job is no longer ours."""
        for settlement in settlements:
            if settlement.record.id in written:
                self._count(settlement)
            elif not self._unsure:
                self._app.events.emit(JobFenced(settlement.record))
        self._forget(settlements)

    def _forget(self, settlements: Sequence[Settlement]) -> None:
        answered = {id(settlement) for settlement in settlements}
        self._unsettled = [settlement for settlement in self._unsettled if id(settlement) not in answered]
        # What was handed back unstarted is unknown there.
        self._pool.written([settlement.record.claim for settlement in settlements])

    def _resolve(self) -> None:
        """Give back what runs under our id and is not in our hands: its claim was never answered."""
        held = self._pool.held()
        held.update(settlement.record.claim for settlement in self._unsettled)
        released = self._adapter.release(self._me.id, held=held)
        if released:
            self._app.events.emit(JobsReleased(tuple(released), "their claim was never answered"))

    def _settle_one_by_one(self) -> None:
        """No job runs again because its neighbour's outcome could not be written: the guilty one alone is failed."""
        for settlement in list(self._unsettled):
            try:
                written = self._adapter.settle(self._me.id, [settlement])
            except (StoreError, OSError, MemoryError):
                # Not for anything in it: this process lacks memory, descriptors or threads at the moment.
                raise
            except Exception as error:  # noqa: BLE001 - whatever the store has against this outcome
                blamed = Settlement(settlement.record, Failed(failure_of(error)))
                written = self._adapter.settle(self._me.id, [blamed])
            self._answered([settlement], written)

    def _hand_back(self, now: float) -> None:
        """Hand back what waits too long, and all that waits when the worker stops."""
        since = None if self._is_closed else now - HAND_BACK
        taken = self._pool.take_back(waiting_since=since)
        if taken:
            self._unsettled.extend(Settlement(record, Released()) for record in taken)
            self._ahead.misjudged()
            self._app.events.emit(JobsReleased(tuple(taken), "not started in time"))

    def _count(self, settlement: Settlement) -> None:
        match settlement.outcome:
            case Succeeded():
                self.tally.succeeded += 1
            case Retried():
                self.tally.retried += 1
            case Failed():
                self.tally.failed += 1
            case Cancelled():
                self.tally.cancelled += 1
            case Released():
                pass
            case _:
                self.tally.postponed += 1

    # --- chores -----------------------------------------------------------------------------------------------------

    def _do_chores(self) -> None:
        if not self._keeper.chores(self._me.id):
            self._begin_anew()
            return
        self._pool.resume()
        for number, handler in self._handlers.items():
            # A native library that was loaded late may have put its own in their place.
            signal.signal(number, handler)
        self._resolve()
        changed = self._sources.changed()
        if changed:
            self._app.events.emit(CodeChanged(changed))

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _store_failed(self, error: Exception) -> None:
        """Keep what is done, and come back to it: the outcomes are written again, and no job runs again for them."""
        self._unsure = True
        self._store_back_at = time.monotonic() + self._outage.failed(error)
        self._woken = True

    def _begin_anew(self) -> None:
        """Somebody took us for dead and has our jobs. What still runs here ends unheard; we go on under a new id."""
        self._app.events.emit(WorkerFenced(self._me))
        self._pool.end_isolated()
        self._keeper.lost()
        self._let_ground_go()
        self._pool.take_back()
        # Again: one that waited may have begun when the others fell.
        self._pool.end_isolated()
        for settlement in self._unsettled:
            self._app.events.emit(JobFenced(settlement.record))
        self._forget(self._unsettled)
        self._adapter.unregister(self._me.id)
        self._register()

    def _see_to_the_end(self, now: float) -> None:
        """Give running jobs their time; then end the process, which is the only way to end a thread.

        A worker in a thread of an application cannot do that: it waits, and says so.
        """
        if self._stop_by is None:
            self._stop_by = now + self._limits.shutdown_timeout
        running = self._pool.running()
        if now < self._stop_by or not running or self._told_abandoned:
            return
        if self._pool.end_isolated() or (self._pool.unwritten and now < self._stop_by + _LAST_WORDS):
            # They are written as released before the process ends: that holds on every store.
            return
        self._told_abandoned = True
        if not self._owns_process:
            _log.warning("stopping: %d jobs still run, and a thread cannot be ended: waiting for them", len(running))
            return
        self._app.events.emit(JobsAbandoned(tuple(running), "not finished in time"))
        self._abandon(128 + signal.SIGTERM)

    def _see_to_the_stuck(self, now: float) -> None:
        """End the process where a job has had its time and cannot be stopped, after the others have had theirs.

        A worker in a thread of an application cannot do that: the slot is lost until the job ends by itself.
        """
        stuck = self._pool.stuck()
        for record in stuck:
            if record.claim not in self._told_stuck:
                self._app.events.emit(JobStuck(record, self._owns_process))
        self._told_stuck = frozenset(record.claim for record in stuck)
        if not stuck or not self._owns_process:
            self._woken = self._woken or self._drain_by is not None
            self._drain_by = None
            return
        if self._drain_by is None:
            self._drain_by = now + self._timing.drain
            self._hand_back(now)
        unwritten = self._pool.unwritten or self._unsettled
        if (self._pool.in_hand > len(stuck) or unwritten) and now < self._drain_by:
            return
        if unwritten and now < self._drain_by + self._timing.grace / 2:
            # What ended in time is still to be written, or the reasons of what failed would be lost.
            return
        innocent = [record for record in self._pool.running() if record.claim not in self._told_stuck]
        self._app.events.emit(JobsAbandoned(tuple(stuck), "not finished in its time"))
        if innocent:
            self._app.events.emit(JobsAbandoned(tuple(innocent), "its process ends for another job"))
        self._abandon(OVERRUN)

    def _end_damaged(self) -> None:
        """Write nothing any more: a descriptor may lead anywhere by now. The notes are in memory that is shared."""
        self._pool.suspect()
        self._pool.end_isolated()
        os._exit(DAMAGED)

    def _abandon(self, code: int) -> NoReturn:
        """End the process. What runs in it keeps its try, where the store keeps the page; not so what is overdue."""
        if self._page is not None:
            self._page.condemn(at=boot_time())
        self._pool.end_isolated()
        os._exit(code)

    # --- life -------------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        began = boot_time()
        id, name, supervisor = self._keeper.identity()  # noqa: A001 - a worker's own word
        me = WorkerRecord(
            id=id,
            name=name,
            supervisor=supervisor,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self._queues,
            concurrency=self._concurrency,
            release=__version__,
        )
        self._adapter.register(me)
        slots = self._concurrency + MOST_UNWRITTEN + _PAGE_SLACK
        self._page = self._keeper.page(me.id, slots=slots)
        self._pool.open_page(self._page)
        if self.has_process_to_itself and self._owns_process:
            self._ground = Ground([*self._adapter.descriptors(me.id), *self._keeper.descriptors()])
            self._pool.watch(self._ground, self._end_damaged)
            self._keeper.watch(self._pool.look, self._pool.end_isolated)
        self._me = me
        self._keeper.registered(me.id, began=began)
        self._app.events.emit(WorkerStarted(self._me))

    @contextmanager
    def _registered(self) -> Iterator[None]:
        self._register()
        yield
        self._let_ground_go()
        try:
            self._adapter.unregister(self._me.id)
        except StoreError as error:
            # All outcomes are written: the row that stays behind is taken for what it is, a worker that is gone.
            self._app.events.emit(StoreFailed("unregister", error))
        self._app.events.emit(WorkerStopped(self._me))

    def _let_ground_go(self) -> None:
        ground, self._ground = self._ground, None
        if ground is not None:
            self._pool.watch(None, self._end_damaged)
            ground.close()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def wake() -> None:
            self._woken = True
            self._bell.ring()

        end = self._keeper.listen(wake)
        try:
            yield
        finally:
            end()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let signals stop the worker, where it has the main thread; elsewhere they are the application's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupted(number: int, frame: FrameType | None) -> None:
            del frame
            if self._stopping and not self._keeper.is_replaced:
                # Nothing is written any more: whoever proves this death finds the notes and hands the jobs back. A
                # supervisor does so itself: from here it might be a job that sent the signal, and would for ever.
                self._abandon(128 + number)
            self.stop()

        def hushed(number: int, frame: FrameType | None) -> None:
            del number, frame
            self.quiet()

        def unheard(number: int, frame: FrameType | None) -> None:
            del number, frame

        handlers = {signal.SIGINT: interrupted, signal.SIGTERM: interrupted, signal.SIGTSTP: hushed}
        handlers |= {number: unheard for number in _ALARMS if signal.getsignal(number) is signal.SIG_DFL}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._handlers = handlers
        self._owns_process = True
        try:
            with stacks_on_quit():
                yield
        finally:
            self._owns_process = False
            self._handlers = {}
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Bell:
    """Wakes the worker. An Event would not do: a signal handler that rings while the loop holds its lock would hang."""

    def __init__(self) -> None:
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wake the worker, now or at its next rest."""
        if self._rings.empty():
            self._rings.put(None)

    def wait(self, seconds: float) -> None:
        """Rest until somebody rings, or the time is over."""
        with suppress(Empty):
            self._rings.get(timeout=seconds)
        with suppress(Empty):
            while True:
                self._rings.get_nowait()


class LookAhead:
    """How many jobs to claim beyond the free slots, from how long the queues' jobs took lately.

    None until ten runs of each queue are known, and none again after a run that took longer than the look-ahead
    allows for all: a slow job must not sit behind another in one worker while other workers idle.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._times: dict[str, deque[float]] = {}
        self._queues: frozenset[str] = frozenset()
        self._jobs = 0

    def claimed(self, records: Sequence[JobRecord]) -> None:
        """Note from which queues jobs come now."""
        self._queues = frozenset(record.queue for record in records)
        self._jobs = self._computed()

    def ran(self, queue: str, seconds: float) -> None:
        """Note how long a job took."""
        times = self._times.setdefault(queue, deque(maxlen=_SAMPLES))
        if seconds > AHEAD:
            times.clear()
            self._jobs = 0
        else:
            times.append(seconds)

    def misjudged(self) -> None:
        """Note that jobs which were claimed ahead had to be handed back: begin to learn anew."""
        self._times.clear()
        self._jobs = 0

    def jobs(self) -> int:
        """Return how many jobs to claim ahead."""
        return self._jobs

    def _computed(self) -> int:
        slowest = 0.0
        for queue in self._queues:
            times = self._times.get(queue, ())
            if len(times) < _KNOWN:
                return 0
            slowest = max(slowest, sorted(times)[len(times) * 95 // 100])
        return min(_MOST_AHEAD, int(self._concurrency * AHEAD / max(slowest, 1e-6)))
