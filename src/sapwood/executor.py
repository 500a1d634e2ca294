"""One record in, one outcome out. The executor calls ``perform`` and judges what came of it; it writes nothing.

But for the outcome of a job that works in the transaction that settles it: that is committed with the work.
"""

import asyncio
import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any

from msgspec.structs import replace

from sapwood import backoff, registry
from sapwood.app import Sapwood
from sapwood.calling import aperform, is_async, perform
from sapwood.context import JobContext
from sapwood.errors import SapwoodError, UnknownJob
from sapwood.events import Events, JobEnded, JobStarted
from sapwood.job import Job
from sapwood.lifecycle import Failed, Failure, Outcome, Retried, Succeeded, Unrecognised
from sapwood.limit import Limit
from sapwood.options import run_time
from sapwood.record import JobRecord
from sapwood.transacting import transacted, within
from sapwood.wording import escaped, storable, story, told

UNKNOWN_WAIT = 60.0
"""Seconds until a job whose class is not loaded is looked at again: another worker may know it."""

UNKNOWN_PATIENCE = timedelta(hours=24)
"""How long such a job waits for a deployment that knows its class before it fails for good."""

LONGEST_WAIT = timedelta(days=366).total_seconds()
"""No retry waits longer, whatever a backoff says."""

_HERE = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - compared with the text in a code object

_log = logging.getLogger("sapwood")


class Executor:
    """Runs jobs, with any adapter or none.

    Args:
        app: whose middleware wraps each job, whose logger and listeners are told.
        max_runtime: seconds that a run may take where its class does not say it, None for ever.
        adapter: the name of the adapter that the records come from; None for that of their class. Asked only for jobs
            that work in the transaction that settles them.
        events: told of start and end, instead of the app's listeners.
    """

    def __init__(
        self,
        app: Sapwood,
        *,
        max_runtime: float | None = None,
        adapter: str | None = None,
        events: Events | None = None,
    ) -> None:
        self._app = app
        self._events = events or app.events
        self._max_runtime = max_runtime
        self._adapter = adapter

    def is_async(self, record: JobRecord) -> bool:
        """Say whether the record's ``perform`` is a coroutine function. A class that is not known is not."""
        job_class = registry.find(record.job)
        return job_class is not None and is_async(job_class)

    def is_isolated(self, record: JobRecord) -> bool:
        """Say whether each run of the record is to be a process of its own."""
        job_class = registry.find(record.job)
        return job_class is not None and job_class.isolated

    def run_time(self, record: JobRecord) -> float | None:
        """Return how many seconds a run of the record may take, None for ever."""
        job_class = registry.find(record.job)
        own = None if job_class is None else run_time(job_class.max_runtime, "max_runtime")
        return self._max_runtime if own is None else own

    def execute(
        self, record: JobRecord, *, stopping: Callable[[], bool] = lambda: False, limit: Limit | None = None
    ) -> Outcome:
        """Run a claimed job to its end and return its outcome. Never raises.

        A job with an ``async def perform`` gets an event loop of its own here.

        Args:
            record: the job, as the claim returned it.
            stopping: what ``self.context.stopping`` asks.
            limit: how a synchronous ``perform`` hears that its time is over; without it, it never does.
        """
        with self._told(record, limit) as run:
            job_class = self._find(record, run)
            context = _context(record, stopping)
            if is_async(job_class):
                asyncio.run(self._arun(job_class, record, context, run))
            elif job_class.transactional:
                self._transact(job_class, record, context, run)
            else:
                run.succeeded(perform(job_class, record.args, context, self._app, run.limit), record)
        return run.outcome

    async def aexecute(
        self, record: JobRecord, *, stopping: Callable[[], bool] = lambda: False, limit: Limit | None = None
    ) -> Outcome:
        """Run a claimed job whose ``perform`` is a coroutine function, on the running event loop. Never raises."""
        with self._told(record, limit) as run:
            job_class = self._find(record, run)
            await self._arun(job_class, record, _context(record, stopping), run)
        return run.outcome

    def failed(self, record: JobRecord, failure: Failure) -> Outcome:
        """Return the outcome of a try that failed where its code could not say so itself."""
        job_class = registry.find(record.job)
        if job_class is None or record.attempts >= record.max_attempts or job_class.delivery == "at_most_once":
            return Failed(failure)
        return Retried(_wait(job_class, record.attempts), failure)

    def _transact(self, job_class: type[Job], record: JobRecord, context: JobContext, run: "_Run") -> None:
        """Have the job work in the transaction that settles it: committed here, or undone."""
        work = transacted(self._app, job_class, record, adapter=self._adapter)
        with work.running():
            try:
                run.succeeded(perform(job_class, record.args, within(context, work), self._app, run.limit), record)
                run.outcome = work.settle(run.outcome)
            finally:
                work.transaction.rollback()

    async def _arun(self, job_class: type[Job], record: JobRecord, context: JobContext, run: "_Run") -> None:
        if not job_class.transactional:
            run.succeeded(await aperform(job_class, record.args, context, self._app, run.limit), record)
            return
        work = transacted(self._app, job_class, record, adapter=self._adapter)
        with work.running():
            try:
                run.succeeded(
                    await aperform(job_class, record.args, within(context, work), self._app, run.limit), record
                )
                run.outcome = await work.asettle(run.outcome)
            finally:
                await work.transaction.arollback()

    def _find(self, record: JobRecord, run: "_Run") -> type[Job]:
        job_class = registry.find(record.job)
        if job_class is None:
            raise UnknownJob(
                f"no job class {record.job!r} is loaded",
                why="this worker's code does not define it, or does not import the module that does",
                mend="name the module in Sapwood(imports=[...]), or give the class that moved aliases=[...]",
            )
        run.job_class = job_class
        return job_class

    @contextmanager
    def _told(self, record: JobRecord, limit: Limit | None) -> Iterator["_Run"]:
        """Catch whatever a job raises, judge it, and tell the listeners of start and end."""
        run = _Run(limit or Limit(self.run_time(record)))
        self._events.emit(JobStarted(record))
        began = time.perf_counter()
        try:
            yield run
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a job is the job's failure, not the worker's
            run.outcome = self._judged(record, run, error)
        self._events.emit(JobEnded(record, run.outcome, time.perf_counter() - began))

    def _judged(self, record: JobRecord, run: "_Run", error: BaseException) -> Outcome:
        failure = failure_of(error)
        if run.limit.expired or run.limit.is_stuck:
            failure = replace(failure, error=timed_out(run.limit.seconds))
        if run.job_class is None:
            since = record.unknown_since
            if since is not None and record.locked_at is not None and record.locked_at - since >= UNKNOWN_PATIENCE:
                return Failed(failure)
            return Unrecognised(UNKNOWN_WAIT, failure)
        return self.failed(record, failure)


class _Run:
    """What is known of a run so far."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit

    job_class: type[Job] | None = None
    outcome: Outcome = Succeeded()

    def succeeded(self, value: Any, record: JobRecord) -> None:
        """Note what ``perform`` has returned."""
        self.outcome = _succeeded(record, self.job_class, value)


def timed_out(seconds: float | None) -> str:
    """Return what is said of a try that was not finished in its time."""
    return f"timeout: not finished within {seconds:g} s" if seconds is not None else "timeout: not finished in time"


def failure_of(error: BaseException) -> Failure:
    """Put an exception into words that every store can keep, however broken, huge or hostile it is.

    NUL becomes U+FFFD, lone surrogates their escapes, and of more than 64 KiB the beginning and the end remain. The
    values of local variables are never part of it, nor are the passwords of URLs.
    """
    kind = type(error)
    try:
        name = f"{kind.__qualname__}" if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:  # noqa: BLE001 - the job's own code runs here too
        name = "(its type has no name)"
    try:
        # Exactly a str: one of a kind of its own would bring its own code along.
        message = str.__str__(str(error))
    except BaseException:  # noqa: BLE001 - as above
        message = "(its message cannot be read)"
    try:
        told = "".join(traceback.format_exception(kind, error, _their_frames(error.__traceback__)))
    except BaseException:  # noqa: BLE001 - as above
        told = None
    return Failure(storable(f"{name}: {message}" if message else name), storable(told) if told is not None else None)


def _their_frames(trace: TracebackType | None) -> TracebackType | None:
    """Skip our own frames: the story begins where the job does."""
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace


def _wait(job_class: type[Job], attempts: int) -> float:
    """Ask the class how long to wait; a backoff that fails must not cost the job its retry."""
    try:
        wait = float(job_class().backoff(attempts))
    except BaseException as error:  # noqa: BLE001 - the job's own code runs here too
        _log.error("the backoff of %s failed, the usual one serves\n%s", job_class.__qualname__, story(error))
        wait = math.nan
    if not wait >= 0:
        wait = backoff.polynomial(attempts)
    return min(wait, LONGEST_WAIT)


def _succeeded(record: JobRecord, job_class: type[Job] | None, value: Any) -> Outcome:
    if job_class is None or not job_class.keep:
        return Succeeded()
    try:
        return Succeeded(keep=True, result=job_class.codec().encode_result(value))
    except BaseException as error:  # noqa: BLE001 - the result's own code runs here too
        # The work is done: doing it again for the sake of its result would be worse than having none.
        why = error if isinstance(error, SapwoodError) else type(error).__name__
        _log.error("the result of %s #%d is not kept: %s", escaped(record.job), record.id, told(str(why)))
        return Succeeded(keep=True)


def _context(record: JobRecord, stopping: Callable[[], bool]) -> JobContext:
    return JobContext(
        job_id=record.id,
        job=record.job,
        queue=record.queue,
        priority=record.priority,
        attempt=record.attempts,
        max_attempts=record.max_attempts,
        run_at=record.run_at,
        created_at=record.created_at,
        lock_token=record.lock_token,
        worker=record.locked_by,
        is_stopping=stopping,
        inline_key="",
    )
