"""A worker's side of its supervisor: it is beaten for and woken, and ends with it."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from sapwood import link
from sapwood.adapters.base import BaseAdapter
from sapwood.events import Event, Events, JobEnded, JobStarted
from sapwood.lifecycle import Failed, Retried
from sapwood.link import Link, Running, Welcome
from sapwood.maintenance import Keeper, StandAlone
from sapwood.page import Page
from sapwood.timing import Trust, boot_time

FENCED = 75
"""The exit code of a worker that can no longer be sure of its jobs (EX_TEMPFAIL)."""

_REPORT_SECONDS = 1.0
_MORE_SECONDS = 0.05
_SIGN_OF_LIFE = 5


class Supervised(Keeper):
    """Sees to a worker by what its supervisor tells it.

    Args:
        ours: the worker's end of the link.
        welcome: the first message.
        adapter: the worker's store.
    """

    takes_apart = False
    is_replaced = True

    def __init__(self, ours: Link, welcome: Welcome, adapter: BaseAdapter) -> None:
        self.look = welcome.timing.look
        self.only_apart = welcome.plan.apart
        self._link = ours
        self._welcome = welcome
        self._adapter = adapter
        self._fence = welcome.timing.fence
        # It begins with the registration: before that there is nothing that could be taken away.
        self._trust = Trust(welcome.timing)
        self._page: Page | None = None
        self._wake: Callable[[], None] = lambda: None
        self._was_hungry = False
        self._more_said = 0.0
        self._look_down: Callable[[], None] = lambda: None
        self._end_children: Callable[[], object] = lambda: None

    # --- as a keeper ------------------------------------------------------------------------------------------------

    def identity(self) -> tuple[str, str | None, str | None]:
        """Return what the supervisor has chosen, which so knows whose jobs to take back."""
        return self._welcome.id, self._welcome.plan.name, self._welcome.supervisor

    def page(self, worker: str, *, slots: int) -> Page:
        """Return the page that the store keeps, or the file that the supervisor will read."""
        self._page = self._adapter.page(worker, slots=slots) or Page(self._welcome.page, slots)
        return self._page

    def descriptors(self) -> Collection[int]:
        """Return the link, and the page for a store that keeps none."""
        return self._link.fileno(), self._welcome.page

    def watch(self, look: Callable[[], None], end: Callable[[], object]) -> None:
        """Have the thread that listens to the supervisor look, too."""
        self._look_down, self._end_children = look, end

    def registered(self, worker: str, *, began: float) -> None:
        """Tell the supervisor that it may beat for this worker."""
        del worker
        # The row was fresh then: nobody can have seen it stand still for longer.
        self._trust.beaten(began)
        self._link.send(link.Ready())

    def is_trusted(self) -> bool:
        """Compare the supervisor's last good beat with the fence."""
        return self._trust.holds(at=boot_time())

    def chores(self, worker: str) -> bool:
        """Do nothing: the supervisor does it all, and ends the worker that was declared dead."""
        del worker
        return True

    def promote(self) -> bool:
        """Leave it to the supervisor."""
        return False

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Hear it from the supervisor."""
        self._wake = wake
        return lambda: None

    def claimed(self, *, all_found: bool) -> None:
        """Tell the supervisor whom to wake when there is news."""
        if not all_found:
            self._was_hungry = False
            now = time.monotonic()
            if now - self._more_said > _MORE_SECONDS:
                self._more_said = now
                self._link.send(link.More())
        elif not self._was_hungry:
            self._was_hungry = True
            self._link.send(link.Hungry())

    def lost(self) -> None:
        """End: what runs here is another's by now, and only the end of the process ends it."""
        os._exit(FENCED)

    # --- the supervisor's word --------------------------------------------------------------------------------------

    def follow(self, *, stop: Callable[[], None], quiet: Callable[[], None]) -> None:
        """Do what the supervisor says, from a thread of its own, as long as the process lives."""
        thread = threading.Thread(target=self._follow, args=(stop, quiet), name="sapwood-link", daemon=True)
        thread.start()

    def _follow(self, stop: Callable[[], None], quiet: Callable[[], None]) -> None:
        self._link.patient(max(0.01, self._fence / 40))
        while True:
            try:
                messages = self._link.receive()
            except TimeoutError:
                messages = []
            except link.Garbled:
                messages = None
            # First of all: a job may have closed the link, and is then to blame.
            self._look_down()
            for message in messages or ():
                match message:
                    case link.Beaten(began):
                        self._trust.beaten(began)
                    case link.Wake():
                        self._was_hungry = False
                        self._wake()
                    case link.Stop():
                        stop()
                    case link.Quiet():
                        quiet()
                    case _:
                        pass
            # Only now: good beats may have waited here while this process was slow, or frozen.
            if messages is None or self._trust.has_ended(at=boot_time()):
                # The supervisor is gone, frozen or cut off: others are about to take the jobs.
                self._end()

    def _end(self) -> None:
        """End at once. What runs is not to blame."""
        if self._page is not None:
            self._page.pardon()
        self._end_children()
        os._exit(FENCED)


class Linked(StandAlone):
    """A worker whose store only the application can open: it looks after itself; a supervisor can only stop it."""

    is_replaced = True

    def __init__(self, ours: Link, welcome: Welcome, adapter: BaseAdapter, events: Events) -> None:
        super().__init__(adapter, welcome.timing, events)
        self._link = ours
        self._welcome = welcome
        self._look_down: Callable[[], None] = lambda: None
        self._end_children: Callable[[], object] = lambda: None

    def descriptors(self) -> Collection[int]:
        """Return the link."""
        return (self._link.fileno(),)

    def watch(self, look: Callable[[], None], end: Callable[[], object]) -> None:
        """Have it looked when the link seems to be closed."""
        self._look_down, self._end_children = look, end

    def identity(self) -> tuple[str, str | None, str | None]:
        """Return a fresh id at each start: this worker may go on under another."""
        id, _, _ = super().identity()  # noqa: A001 - a worker's own word
        return id, self._welcome.plan.name, self._welcome.supervisor

    def registered(self, worker: str, *, began: float) -> None:
        """Tell the supervisor that it is ready."""
        super().registered(worker, began=began)
        self._link.send(link.Ready())

    def page(self, worker: str, *, slots: int) -> Page:
        """Return the page that the store keeps, or the file that the supervisor reads while this worker lives."""
        return self._adapter.page(worker, slots=slots) or Page(self._welcome.page, slots)

    def follow(self, *, stop: Callable[[], None], quiet: Callable[[], None]) -> None:
        """Stop when told to, or when the supervisor is gone."""
        threading.Thread(target=self._follow, args=(stop, quiet), name="sapwood-link", daemon=True).start()

    def _follow(self, stop: Callable[[], None], quiet: Callable[[], None]) -> None:
        self._link.patient(None)
        with suppress(link.Garbled):
            while (messages := self._link.receive()) is not None:
                for message in messages:
                    if isinstance(message, link.Stop):
                        stop()
                    elif isinstance(message, link.Quiet):
                        quiet()
        self._look_down()
        self._end_children()
        os._exit(FENCED)


class Reporter:
    """Tells the supervisor once a second what runs, where that has changed.

    Args:
        ours: the worker's end of the link.
        events: where the worker's jobs are told of.
    """

    def __init__(self, ours: Link, events: Events) -> None:
        self._link = ours
        self._running: dict[int, tuple[str, float]] = {}
        self._done = self._failed = 0
        self._lock = threading.Lock()
        events.listen(self._hear)
        threading.Thread(target=self._report_on, name="sapwood-report", daemon=True).start()

    def _hear(self, event: Event) -> None:
        match event:
            case JobStarted(record):
                with self._lock:
                    self._running[record.id] = (record.job, time.monotonic())
            case JobEnded(record, outcome, _):
                with self._lock:
                    self._running.pop(record.id, None)
                    self._done += 1
                    self._failed += isinstance(outcome, Retried | Failed)
                    first = self._done == 1
                if first:
                    # At once: should a job kill this process now, its supervisor knows that it did work before.
                    self.tell()
            case _:
                pass

    def tell(self) -> None:
        """Report now."""
        now = time.monotonic()
        with self._lock:
            jobs = [Running(id, job, round(now - since, 3)) for id, (job, since) in self._running.items()]  # noqa: A001 - a job's own word
            report = link.Report(jobs, self._done, self._failed)
        self._link.send(report)

    def _report_on(self) -> None:
        pause = threading.Event()
        last: tuple[object, ...] = ()
        for second in itertools.count():
            pause.wait(_REPORT_SECONDS)
            with self._lock:
                state = (tuple(self._running), self._done)
            # Also when nothing has changed: it shows that the worker's threads get to run.
            if state != last or second % _SIGN_OF_LIFE == 0:
                last = state
                self.tell()
