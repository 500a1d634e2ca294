"""Keeps worker processes alive. It runs no code of the application and holds no job, so that nothing can take it along.

One thread decides and starts processes; each store has a :class:`~sapwood.steward.Steward` with threads of its own, so
that a slow database holds up no process, and a slow process no beat.
"""

import faulthandler
import os
import selectors
import signal
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from msgspec import Struct

from sapwood import link
from sapwood.adapters.base import BaseAdapter
from sapwood.events import Events, WorkerDied, WorkerOverran
from sapwood.ground import DAMAGED
from sapwood.host import OVERRUN, ending, resident_memory
from sapwood.options import longest
from sapwood.plan import Plan, WorkerPlan
from sapwood.processes import Slot, WorkerProcess
from sapwood.rolling import Done, Roll
from sapwood.steward import Steward, Superior, Wards
from sapwood.supervised import FENCED
from sapwood.timing import Trust, boot_time
from sapwood.wording import told

UNUSABLE = 78
"""The exit code of a worker that cannot work at all, such as one whose application cannot be imported (EX_CONFIG)."""

_PATIENCE = 10.0
"""Seconds that the end waits for a store to take back what was abandoned; later, others find it."""

_APART_PAUSE = 1.0
_PAGE_LOOK = 1.0
_MUTE = 10.0
"""A worker that said it ends, or whose link is closed, is given so long, as a multiple of the pause after a crash."""

_GRACE = 1.0


class _Store(Struct):
    """A store that is looked after."""

    adapter: BaseAdapter
    trust: Trust
    steward: Steward | None = None
    error: str = ""
    news: int = 0
    apart_due: float = 0.0


class Supervisor:
    """Keeps the workers of a plan alive until it is told to stop.

    Args:
        plan: the workers.
        stores: the adapters of the plan, opened by this process; None where only the application can open it.
        events: told what happens.
        changed: called, in the main thread, after each turn: for whoever tells others how it stands.
    """

    def __init__(
        self,
        plan: Plan,
        stores: Mapping[str, BaseAdapter | None],
        *,
        events: Events | None = None,
        changed: Callable[["Supervisor"], None] = lambda _: None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.plan = plan
        self.events = events or Events()
        self.began = time.monotonic()
        self.slots = [Slot(worker) for worker in plan.workers]
        self.done = self.failed = 0
        """The runs of workers that have ended, and how many of these failed."""

        self.is_stopping = False
        self.is_quiet = False
        self.successor: Plan | None = None
        """The plan of another release, which is to take over this process."""

        self._changed = changed
        opened = {name: adapter for name, adapter in stores.items() if adapter is not None}
        self._stores = {name: _Store(adapter, Trust(plan.timing)) for name, adapter in opened.items()}
        self._extra: list[Slot] = []
        self._roll: Roll | None = None
        self._wards: Mapping[str, Wards] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._signals: deque[int] = deque()
        self._bell, self._ring = socket.socketpair()
        self._bell.setblocking(False)
        self._ring.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._stop_by: float | None = None
        self._next_page_look = 0.0
        self._on_end: list[Callable[[], None]] = []

    # --- from outside -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep the workers alive until SIGINT, SIGTERM or :meth:`stop`. In the main thread only."""
        self._selector.register(self._bell, selectors.EVENT_READ)
        with self._signalled():
            self._tend()
            try:
                while not self._is_over():
                    self._turn()
                    self._changed(self)
                    self._rest()
            finally:
                self._end()

    def post(self, call: Callable[[], None]) -> None:
        """Have the main thread call something, soon. May be called from any thread."""
        self._calls.append(call)
        with suppress(OSError):
            self._ring.send(b"\0")

    def stop(self, *, now: bool = False) -> None:
        """Stop all workers: by letting them finish within their time, or ``now``."""
        self.is_stopping = True
        if self._roll is not None:
            self._roll.end("the supervisor stops")
            self._roll = None
        for slot in self._all_slots():
            slot.leave()
        # They end by themselves in that time, and then write what they leave undone: this is for those that cannot.
        limit = time.monotonic() + (0 if now else self.plan.shutdown_timeout + _GRACE)
        self._stop_by = limit if self._stop_by is None else min(limit, self._stop_by)

    def stop_groups(self, groups: Collection[str], done: Done) -> None:
        """Stop the workers of some groups, for good; ``done`` is called when they have ended."""
        leaving = [slot for slot in self._all_slots() if slot.plan.group in groups]
        for slot in leaving:
            slot.leave()

        def look() -> None:
            if any(slot.process is not None for slot in leaving):
                self._on_end.append(look)
            else:
                done(None)

        look()

    def quiet(self) -> None:
        """Let no worker claim any more; what runs may finish."""
        self.is_quiet = True
        for slot in self._all_slots():
            if slot.process is not None:
                slot.process.link.send(link.Quiet())

    def restart(self, plan: Plan, done: Done, *, patience: float = 60) -> None:
        """Replace the workers one by one by those of ``plan``: each old one stops when a new one is ready.

        A new one that does not get ready ends the restart; the old ones that are left go on. Where ``plan`` is of
        another release or names other stores, this process is to be replaced too: all workers stop, :meth:`run`
        returns, and ``successor`` says what follows.
        """
        if self.is_stopping or self._roll is not None:
            done("it is stopping" if self.is_stopping else "another restart is under way")
            return
        if (plan.release, plan.stores, plan.timing) != (self.plan.release, self.plan.stores, self.plan.timing):
            self.successor = plan
            self.stop()
            done(None)
            return
        before, self.plan = self.plan, plan

        def over(failure: str | None) -> None:
            if failure is not None:
                self.plan = before
            done(failure)

        self._roll = Roll(self.slots, [Slot(worker) for worker in plan.workers], patience=patience, done=over)

    def status(self) -> dict[str, Any]:
        """Return how everything stands, as JSON holds it."""
        now = time.monotonic()
        return {
            "supervisor": {
                "id": self.id,
                "pid": os.getpid(),
                "release": self.plan.release,
                "app": self.plan.app,
                "spec": self.plan.spec,
                "seconds": round(now - self.began, 3),
                "state": self._state(),
                "memory": resident_memory(),
            },
            "stores": {name: self._store_status(name) for name in self.plan.stores},
            "workers": [_slot_status(slot, now) for slot in self._all_slots()],
        }

    @property
    def is_ready(self) -> bool:
        """Whether every worker can claim, and every store has answered lately."""
        return (
            not self.is_stopping
            and all(slot.is_ready for slot in self.slots if slot.wanted)
            and all(self._is_well(store) for store in self._stores.values())
        )

    @property
    def obstacles(self) -> Sequence[str]:
        """Why workers are not ready, as far as is known."""
        stores = [store.error for store in self._stores.values() if store.error]
        workers = [
            f"worker {slot.plan.name}: {slot.last_end}" for slot in self.slots if not slot.is_ready and slot.last_end
        ]
        return list(dict.fromkeys(stores or workers))

    # --- one turn ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        # First of all, whatever woke us: we may have been frozen, and others may have our jobs.
        self._fence()
        while self._signals:
            self._took(self._signals.popleft())
        while self._calls:
            self._calls.popleft()()
        for slot in self._all_slots():
            if slot.process is not None and slot.process.process.has_ended():
                self._ended(slot, slot.process)
        # Before the start of those that follow: a newcomer that failed is not tried again.
        self._go_on_rolling()
        self._start_due()
        self._kill_overdue()
        self._look_at_pages()
        self._kill_mute()

    def _rest(self) -> None:
        for key, _ in self._selector.select(self._seconds_to_rest()):
            if key.data is None:
                with suppress(BlockingIOError):
                    while self._bell.recv(4096):
                        pass
            else:
                self._hear(key.data)

    def _seconds_to_rest(self) -> float:
        now = time.monotonic()
        due = [now + 1.0]
        due += [slot.due for slot in self._all_slots() if slot.wanted and slot.process is None]
        due += [limit for limit in map(self._kill_at, self._all_slots()) if limit is not None]
        due += [limit for limit in map(self._mute_until, self._all_slots()) if limit is not None]
        return max(0.0, min(due) - now)

    def _is_over(self) -> bool:
        return self.is_stopping and all(slot.process is None for slot in self._all_slots())

    def _all_slots(self) -> Iterator[Slot]:
        yield from [*self.slots, *self._extra]

    # --- liveness ---------------------------------------------------------------------------------------------------

    def _is_trusted(self, store: _Store) -> bool:
        return store.trust.holds(at=boot_time())

    def _is_well(self, store: _Store) -> bool:
        """Whether the last beat was good, and lately: a store that fails is no place for a worker to begin."""
        return not store.error and self._is_trusted(store)

    def _fence(self) -> None:
        """Cut off from a store for too long, end its workers: others are about to take their jobs."""
        for name, store in self._stores.items():
            if store.adapter.proves_death:
                self._hold(name, store)
            elif store.trust.has_ended(at=boot_time()):
                for slot in self._all_slots():
                    if slot.process is not None and slot.plan.adapter == name:
                        slot.process.kill(store.adapter)
                        slot.last_end = "ended: its store could not be reached"

    def _beaten(self, name: str, began: float, known: frozenset[str], lost: frozenset[str]) -> None:
        store = self._stores[name]
        store.trust.beaten(began)
        store.error = ""
        for slot in self._all_slots():
            if slot.process is None or slot.plan.adapter != name:
                continue
            if slot.process.id in lost and not slot.process.ended_well:
                # Declared dead while it lives: its jobs are others' by now.
                slot.process.kill(store.adapter)
                slot.last_end = "ended: it was declared dead"
            elif slot.process.id in known:
                # One that has just come was not beaten for: it counts from when its row was written.
                slot.process.link.send(link.Beaten(began))

    def _failed(self, name: str, error: Exception) -> None:
        self._stores[name].error = told(str(error))

    def _hold(self, name: str, store: _Store) -> None:
        """Go on trusting, whatever becomes of the beats: of workers that live, nobody takes the jobs.

        What they have done waits for the store, and would be done again if they were ended now.
        """
        now = boot_time()
        if store.trust.began is not None and now - store.trust.began > 1.5 * self.plan.timing.beat:
            store.trust.beaten(now)
            for slot in self._all_slots():
                if slot.process is not None and slot.is_ready and slot.plan.adapter == name:
                    slot.process.link.send(link.Beaten(now))

    def _tend(self) -> None:
        polls = [worker.poll_interval for worker in self.plan.workers]
        for name, store in self._stores.items():
            store.steward = Steward(
                store.adapter,
                self.plan.timing,
                poll_interval=min(polls, default=0.5),
                events=self.events,
                superior=_Ear(self, name),
            )
            store.steward.start()

    def _count_wards(self) -> None:
        """Say anew for whom to beat. The threads of the stewards read it as one value."""
        wards = {}
        for name in self._stores:
            mine = [slot.process for slot in self._all_slots() if slot.process and slot.plan.adapter == name]
            wards[name] = Wards(
                living=frozenset(process.id for process in mine if process.is_ready),
                starting=frozenset(process.id for process in mine if not process.is_ready),
            )
        self._wards = wards

    # --- processes --------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in self._all_slots():
            if slot.wanted and slot.process is None and now >= slot.due and not self.is_stopping:
                self._start(slot)

    def _start(self, slot: Slot) -> None:
        store = self._stores.get(slot.plan.adapter)
        if store is not None and not self._is_well(store):
            slot.due = time.monotonic() + 0.05 * self.plan.timing.restart
            return
        try:
            process = WorkerProcess(self.plan, slot.plan, supervisor=self.id)
        except OSError as error:
            self._put_off(slot, f"cannot be started: {error}")
            return
        slot.process = process
        if self.is_quiet:
            process.link.send(link.Quiet())
        self._selector.register(process.link, selectors.EVENT_READ, process)
        self._count_wards()

    def _ended(self, slot: Slot, process: WorkerProcess) -> None:
        """A process is gone: take back its jobs, and see who follows."""
        while self._hear(process):
            pass
        code = process.bury()
        with suppress(KeyError, ValueError):
            self._selector.unregister(process.link)
        slot.process = None
        self.done += process.report.done
        self.failed += process.report.failed
        self._count_wards()
        store = self._stores.get(slot.plan.adapter)
        if not process.ended_well and store is not None and store.steward is not None:
            store.steward.rescue(process.id, process.notes(store.adapter))
        process.close()
        for call in self._on_end[:]:
            self._on_end.remove(call)
            call()
        if slot in self._extra:
            self._extra.remove(slot)
            if store is not None:
                store.apart_due = time.monotonic() + (
                    0 if process.ended_well else _APART_PAUSE * self.plan.timing.restart
                )
        if not slot.wanted or self.is_stopping:
            return
        slot.restarts += 1
        overran = process.process.returncode == OVERRUN
        if overran:
            slot.last_end = "ended: a job outlasted its time"
        if process.ended_well or process.was_killed or overran:
            slot.crashes = 0
            slot.due = 0.0
        else:
            self._crashed(slot, process, code)

    def _crashed(self, slot: Slot, process: WorkerProcess, code: int) -> None:
        lived = time.monotonic() - process.began
        # One that did its work was killed by a job, and a job can do that but three times: its place waits for nothing.
        if process.report.done or (process.is_ready and lived >= self.plan.timing.restart_most):
            slot.crashes = 0
        slot.cannot_work = process.unusable is not None
        how = process.unusable or process.fault or _how(code)
        wait = self._put_off(slot, how)
        self.events.emit(WorkerDied(slot.plan.name, process.pid, how, wait))

    def _put_off(self, slot: Slot, why: str) -> float:
        """Have another worker follow: at once after a first crash, later after each further one in a row."""
        timing = self.plan.timing
        wait = 0.0 if slot.crashes == 0 else min(timing.restart_most, timing.restart * 2 ** min(slot.crashes - 1, 20))
        slot.crashes += 1
        slot.last_end = why
        slot.due = time.monotonic() + wait
        return wait

    def _kill_at(self, slot: Slot) -> float | None:
        """Return until when a worker that was told to stop may go on."""
        process = slot.process
        if process is None or process.stop_began is None or process.was_killed:
            return None
        # It ends by itself in time, and says what it leaves undone; this is for one that cannot.
        limit = process.stop_began + self.plan.shutdown_timeout + _GRACE
        return limit if self._stop_by is None else min(limit, self._stop_by)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for slot in self._all_slots():
            limit = self._kill_at(slot)
            if limit is not None and now >= limit and slot.process is not None:
                store = self._stores.get(slot.plan.adapter)
                slot.process.kill(None if store is None else store.adapter)
                slot.last_end = "ended: it did not stop in time"

    def _look_at_pages(self) -> None:
        """End each worker that has not ended by itself for a job that outlasted its time: it cannot, its GIL is held.

        Its page tells. What else it runs keeps its try.
        """
        now = time.monotonic()
        if now < self._next_page_look:
            return
        timing = self.plan.timing
        self._next_page_look = now + min(_PAGE_LOOK, timing.grace)
        for slot in self._all_slots():
            process, store = slot.process, self._stores.get(slot.plan.adapter)
            if process is None or process.was_killed:
                continue
            adapter = None if store is None else store.adapter
            if process.overdue(adapter) >= timing.drain + timing.grace:
                process.kill(adapter, overdue=True)
                slot.last_end = "ended: a job outlasted its time, and it did not end by itself"
                self.events.emit(WorkerOverran(slot.plan.name, process.pid))

    def _mute_until(self, slot: Slot) -> float | None:
        """Return until when a worker may go on that has said its last, or whose link is closed."""
        process = slot.process
        if process is None or process.mute_since is None or process.was_killed:
            return None
        return process.mute_since + _MUTE * self.plan.timing.restart

    def _kill_mute(self) -> None:
        """End processes that are no workers any more: another program, or a last handler that does not return."""
        now = time.monotonic()
        for slot in self._all_slots():
            limit = self._mute_until(slot)
            if limit is not None and now >= limit and slot.process is not None:
                # Not pardoned: what it ran may well be what became of it.
                slot.process.mute_since = None
                slot.process.process.send_signal(signal.SIGKILL)

    # --- what workers say -------------------------------------------------------------------------------------------

    def _hear(self, process: WorkerProcess) -> bool:
        """Take in what a worker has said; False where that was nothing."""
        messages = self._received(process)
        if messages is None:
            # Its end is closed: it has ended, or is about to. Being told so over and over would leave us no rest.
            if process.mute_since is None:
                process.mute_since = time.monotonic()
            with suppress(KeyError, ValueError):
                self._selector.unregister(process.link)
            return False
        for message in messages:
            process.heard = time.monotonic()
            match message:
                case link.Ready():
                    process.is_ready = True
                    self._count_wards()
                case link.Hungry():
                    process.hungry = True
                    self._feed(process)
                case link.More():
                    self._wake_one(process.plan.adapter, process.plan.queues)
                case link.Report():
                    process.report = message
                case link.Unusable(why):
                    process.unusable = why
                case link.Ended():
                    process.ended_well = True
                    process.mute_since = time.monotonic()
                case _:
                    pass
        return bool(messages)

    def _received(self, process: WorkerProcess) -> list[link.Message] | None:
        try:
            return process.link.receive()
        except link.Garbled:
            self._give_up(process)
            return None

    def _give_up(self, process: WorkerProcess) -> None:
        """End a worker that cannot be understood: its jobs have got hold of its end of the link.

        It is not pardoned: the guilty one would garble the next link, too.
        """
        process.fault = "ended: what it said could not be understood"
        process.process.send_signal(signal.SIGKILL)

    def _news(self, name: str, queues: Collection[str], *, apart: bool) -> None:
        store = self._stores[name]
        if apart:
            self._run_apart(name, store, queues)
            return
        store.news += 1
        unserved = set(queues)
        while unserved:
            woken = self._wake_one(name, unserved)
            if woken is None:
                return
            unserved -= unserved if woken.queues is None else set(woken.queues)

    def _wake_one(self, name: str, queues: Collection[str] | None) -> WorkerPlan | None:
        """Wake a worker that has nothing to do, and return its plan.

        If there is more than it can run, it says so, and the next is woken: one job does not wake them all.
        """
        for slot in self.slots:
            process = slot.process
            if process is not None and process.hungry and slot.plan.adapter == name and _serves(slot.plan, queues):
                self._wake(process)
                return slot.plan
        return None

    def _feed(self, process: WorkerProcess) -> None:
        """Wake a worker again that found nothing, where there was news after it began to look."""
        store = self._stores.get(process.plan.adapter)
        if store is None or process.plan.apart:
            return
        if process.news_told < store.news:
            self._wake(process)
        elif store.steward is not None:
            store.steward.look_again()

    def _wake(self, process: WorkerProcess) -> None:
        process.hungry = False
        process.news_told = self._stores[process.plan.adapter].news
        process.link.send(link.Wake())

    def _run_apart(self, name: str, store: _Store, queues: Collection[str] | None) -> None:
        """Give jobs that a death has set apart a process of their own, with one slot: who is guilty dies alone."""
        served = [worker for worker in self.plan.workers if worker.adapter == name and _serves(worker, queues)]
        busy = any(slot.plan.adapter == name for slot in self._extra)
        if busy or not served or self.is_stopping or self.is_quiet or time.monotonic() < store.apart_due:
            return
        every = {queue for worker in served for queue in worker.queues or ()}
        plan = WorkerPlan(
            name="apart" if name == "default" else f"{name}/apart",
            group="apart",
            adapter=name,
            queues=None if any(worker.queues is None for worker in served) else sorted(every),
            concurrency=1,
            max_runtime=longest(worker.max_runtime for worker in served),
            apart=True,
        )
        self._extra.append(Slot(plan))

    def _go_on_rolling(self) -> None:
        if self._roll is not None and self._roll.go_on(self.slots):
            self._roll = None
        self.slots = [slot for slot in self.slots if slot.wanted or slot.process is not None]

    # --- signals ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _signalled(self) -> Iterator[None]:
        """Take signals between two turns, where everything may be done, and not within a handler."""

        def noted(number: int, frame: FrameType | None) -> None:
            del frame
            self._signals.append(number)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGQUIT, signal.SIGCHLD)
        before = {number: signal.signal(number, noted) for number in numbers}
        wakeup = signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _took(self, number: int) -> None:
        match number:
            case signal.SIGINT | signal.SIGTERM | signal.SIGHUP:
                self.stop(now=self.is_stopping)
            case signal.SIGTSTP:
                self.quiet()
            case signal.SIGQUIT:
                faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
                for slot in self._all_slots():
                    if slot.process is not None:
                        slot.process.process.send_signal(signal.SIGQUIT)
            case _:
                pass

    # --- how it stands ----------------------------------------------------------------------------------------------

    def _state(self) -> str:
        if self.is_stopping:
            return "stopping"
        if self.is_quiet:
            return "quiet"
        if self._roll is not None:
            return "restarting"
        return "ready" if self.is_ready else "not ready"

    def _store_status(self, name: str) -> dict[str, Any]:
        store = self._stores.get(name)
        if store is None:
            return {"address": None, "beat_seconds": None, "error": ""}
        age = None if store.trust.began is None else round(boot_time() - store.trust.began, 3)
        return {"address": store.adapter.describe(), "beat_seconds": age, "error": store.error}

    # --- the end ----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        for store in self._stores.values():
            if store.steward is not None:
                store.steward.stop(patience=_PATIENCE)
        for store in self._stores.values():
            store.adapter.close()
        self._selector.close()
        self._bell.close()
        self._ring.close()


class _Ear(Superior):
    """Passes on to the supervisor's main thread what the steward of a store has to say."""

    def __init__(self, supervisor: Supervisor, name: str) -> None:
        self._supervisor = supervisor
        self._name = name

    def wards(self) -> Wards:
        return self._supervisor._wards.get(self._name, Wards())  # noqa: SLF001 - its own ear

    def is_hungry(self) -> bool:
        # It may be heard a moment too late; the supervisor then asks for another look.
        living = filter(None, [slot.process for slot in self._supervisor.slots])
        return any(process.hungry and process.plan.adapter == self._name for process in living)

    def beaten(self, began: float, known: frozenset[str], lost: frozenset[str]) -> None:
        self._supervisor.post(lambda: self._supervisor._beaten(self._name, began, known, lost))  # noqa: SLF001 - as above

    def failed(self, error: Exception) -> None:
        self._supervisor.post(lambda: self._supervisor._failed(self._name, error))  # noqa: SLF001 - as above

    def news(self, queues: Collection[str], *, apart: bool) -> None:
        self._supervisor.post(lambda: self._supervisor._news(self._name, queues, apart=apart))  # noqa: SLF001 - as above


def _slot_status(slot: Slot, now: float) -> dict[str, Any]:
    plan, process = slot.plan, slot.process
    status: dict[str, Any] = {
        "name": plan.name,
        "group": plan.group,
        "adapter": plan.adapter,
        "queues": plan.queues,
        "concurrency": plan.concurrency,
        "restarts": slot.restarts,
        "last_end": slot.last_end,
        "state": "waiting",
    }
    if process is None:
        return status | {"pid": None, "starts_in": round(max(0.0, slot.due - now), 3)}
    state = "stopping" if process.stop_began is not None else "ready" if process.is_ready else "starting"
    return status | {
        "state": state,
        "pid": process.pid,
        "id": process.id,
        "seconds": round(now - process.began, 3),
        "running": [
            {"id": job.id, "job": job.job, "seconds": round(job.seconds + now - process.heard, 3)}
            for job in process.report.running
        ],
        "done": process.report.done,
        "failed": process.report.failed,
        "memory": resident_memory(process.pid),
        "heard_seconds": round(now - process.heard, 3),
    }


def _serves(plan: WorkerPlan, queues: Collection[str] | None) -> bool:
    return plan.queues is None or queues is None or not set(plan.queues).isdisjoint(queues)


def _how(code: int) -> str:
    """Return how a process ended, in words."""
    if code == 0:
        return "it ended by itself, with nothing said"
    if code == DAMAGED:
        return "a job had closed or replaced its descriptors, and it ended before it could write elsewhere"
    if code == FENCED:
        return "it fenced itself: it was not beaten for in time, or its jobs were taken"
    return ending(code)
