"""A worker process, and the place that it fills."""

import os
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from typing import IO

from sapwood import link
from sapwood.adapters.base import BaseAdapter
from sapwood.host import Child, end_started_for, environment, usual_umask
from sapwood.lifecycle import Trace
from sapwood.link import Link
from sapwood.page import Claim, condemn, first_deadline, pardon, read_page
from sapwood.plan import Plan, WorkerPlan
from sapwood.record import WorkerRecord
from sapwood.timing import boot_time


class WorkerProcess:
    """One process of a worker, from its start to its end."""

    def __init__(self, plan: Plan, worker: WorkerPlan, *, supervisor: str) -> None:
        self.plan = worker
        self.id = uuid.uuid4().hex
        self.began = time.monotonic()
        self.is_ready = False
        self.ended_well = False
        self.unusable: str | None = None
        self.stop_began: float | None = None
        self.was_killed = False
        self.fault: str | None = None
        self._deadline: float | None = None
        self._overdue_since = 0.0
        self.mute_since: float | None = None
        """Since when nothing is to be heard from it any more."""

        self.hungry = False
        self.news_told = 0
        self.report = link.Report((), 0, 0)
        self.heard = time.monotonic()
        self._page: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open until close()
        ours, theirs = socket.socketpair()
        self.link = Link(ours)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self.process = Child(
                [*plan.command, str(theirs.fileno())],
                cwd=plan.directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._page.fileno()),
                # A group of its own: what a terminal sends reaches it once, from us.
                process_group=0,
                umask=usual_umask(),
            )
        self.link.patient(0)
        self._welcome(plan, supervisor)

    def _welcome(self, plan: Plan, supervisor: str) -> None:
        self.link.send(
            link.Welcome(
                id=self.id,
                supervisor=supervisor,
                parent=os.getpid(),
                page=self._page.fileno(),
                app=plan.app,
                plan=self.plan,
                timing=plan.timing,
                shutdown_timeout=plan.shutdown_timeout,
                tended=plan.stores[self.plan.adapter] is not None,
                quiet=plan.quiet,
                verbose=plan.verbose,
            )
        )

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def stop(self) -> None:
        """Ask it to finish what runs, and to end."""
        if self.stop_began is None:
            self.stop_began = time.monotonic()
        self.link.send(link.Stop())

    def kill(self, store: BaseAdapter | None, *, overdue: bool = False) -> None:
        """End it now. What it runs is not to blame, and keeps its try; but with ``overdue`` not what is that."""
        self.was_killed = True
        moment = boot_time()
        if overdue:
            condemn(self._page.fileno(), at=moment)
        else:
            pardon(self._page.fileno())
        if store is not None and overdue:
            store.condemn(self.id, at=moment)
        elif store is not None:
            store.pardon(self.id)
        self.process.kill()

    def overdue(self, store: BaseAdapter | None) -> float:
        """Return for how many seconds it was seen to run a job that must have ended.

        They are counted from when it was first seen, by a clock that stands while the machine sleeps: neither has had
        time to do anything then.
        """
        deadline = None if store is None else store.first_deadline(self.id)
        if deadline is None:
            deadline = first_deadline(self._page.fileno())
        now = time.monotonic()
        if deadline != self._deadline or deadline is None or boot_time() < deadline:
            self._deadline, self._overdue_since = deadline, now
        return now - self._overdue_since

    def bury(self) -> int:
        """Return the exit code of a process that has ended.

        What its jobs have started and left in its group ends with it, unless it ended in good order: that work is to be
        done again, and two would be at it. So do its isolated jobs, with all that they have started.
        """
        if not self.ended_well:
            end_started_for(self.pid)
        return self.process.bury(with_group=not self.ended_well)

    def notes(self, store: BaseAdapter) -> Mapping[Claim, Trace] | None:
        """Return what it noted; only once it has ended."""
        record = WorkerRecord(id=self.id, host="", pid=self.pid, queues=None, concurrency=1, release="")
        notes = store.notes(record)
        if notes is None:
            notes = read_page(self._page.fileno())
        # Without a page it had claimed nothing.
        return {} if notes is None else notes

    def close(self) -> None:
        """Let go of its descriptors."""
        self.link.close()
        self._page.close()


class Slot:
    """A place for one worker, and who fills it."""

    def __init__(self, plan: WorkerPlan) -> None:
        self.plan = plan
        self.process: WorkerProcess | None = None
        self.wanted = True
        self.due = 0.0
        self.crashes = 0
        """In a row."""

        self.cannot_work = False
        self.restarts = 0
        self.last_end: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether its worker can claim."""
        return self.process is not None and self.process.is_ready

    @property
    def is_hopeless(self) -> bool:
        """Whether its last worker said that it cannot work at all."""
        return self.process is None and self.crashes > 0 and self.cannot_work

    def leave(self) -> None:
        """Let its worker finish what it runs; nobody follows."""
        self.wanted = False
        if self.process is not None:
            self.process.stop()
