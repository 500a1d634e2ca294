"""Runs that work in the transaction that settles them: their effect in that database happens exactly once.

The fence and the outcome are the last statements of the transaction, so that the work and the outcome are committed
together or not at all. What the store has not answered is asked of the row, whose lock tells when there is an answer.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from sapwood.adapters.base import WITHIN, BaseAdapter, Settlement, Transaction
from sapwood.app import Sapwood
from sapwood.aside import aside, uninterrupted
from sapwood.calling import is_async
from sapwood.context import JobContext
from sapwood.errors import CommitUnknown, ConfigurationError, StoreError
from sapwood.events import JobFenced, JobsReleased, StoreFailed
from sapwood.lifecycle import Outcome, Released, Succeeded
from sapwood.record import JobRecord, JobState

JobClass = type[Any]
"""A subclass of :class:`sapwood.Job`, which stands above this module."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0


class Transacted:
    """One run in a transaction, opened by the job or never.

    Jobs that it enqueues on the same adapter join the transaction from then on. What listeners are told of them waits
    for the commit.

    Args:
        app: the application.
        adapter: the name of the adapter whose transaction it is.
        transaction: it.
        record: the job as it was claimed, None for one that is not stored.
    """

    def __init__(self, app: Sapwood, adapter: str, transaction: Transaction, record: JobRecord | None) -> None:
        self.transaction = transaction
        self._app = app
        self._name = adapter
        self._adapter = app.adapter(adapter)
        self._record = record

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the job's own enqueuing join the transaction."""
        token = WITHIN.set((*WITHIN.get(), self.transaction))
        try:
            with self._app.working(self.transaction, adapter=self._name):
                yield
        finally:
            WITHIN.reset(token)

    def settle(self, outcome: Outcome) -> Outcome:
        """Commit the work together with the outcome; return the outcome that is left to be written, if any."""
        if not self.transaction.is_open:
            return outcome
        try:
            return self._committed(outcome, written=self.transaction.commit(outcome))
        except CommitUnknown as error:
            return self._resolved(outcome, error)

    async def asettle(self, outcome: Outcome) -> Outcome:
        """Do the same for a coroutine. The waiting, if any, is done in a thread."""
        if not self.transaction.is_open:
            return outcome
        try:
            return self._committed(outcome, written=await self.transaction.acommit(outcome))
        except CommitUnknown as error:
            return await uninterrupted(aside(self._resolved, outcome, error))

    def _committed(self, outcome: Outcome, *, written: bool) -> Outcome:
        if written:
            self._app.worked(self.transaction)
            return _as_written(outcome)
        if self._record is not None:
            self._app.events.emit(JobFenced(self._record))
        return Released(written=True)

    def _resolved(self, outcome: Outcome, error: CommitUnknown) -> Outcome:
        """Ask the row what became of the commit, until the store answers.

        The claim is released by its own fence. The settled row is locked until the server has ended the transaction,
        so this waits for it: the row that is still there was not settled, and neither was the work committed.
        """
        record = self._record
        if record is None:
            raise error
        self._app.events.emit(StoreFailed("commit", error))
        pause, waiting = _FIRST_PAUSE, threading.Event()
        while True:
            waiting.wait(pause * (0.5 + random.random() / 2))  # noqa: S311 - a spread, not a secret
            try:
                return self._asked(record, outcome)
            except StoreError as still:
                self._app.events.emit(StoreFailed("resolve a commit", still))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _asked(self, record: JobRecord, outcome: Outcome) -> Outcome:
        if self._adapter.settle(record.locked_by or "", [Settlement(record, Released())]):
            self._app.events.emit(JobsReleased((record,), "its transaction was not committed"))
            return Released(written=True)
        left = self._adapter.get(record.id)
        if left is None or (left.state is JobState.SUCCEEDED and left.lock_token == record.lock_token):
            return self._committed(outcome, written=True)
        return self._committed(outcome, written=False)


def transacted(app: Sapwood, job_class: JobClass, record: JobRecord, *, adapter: str | None = None) -> Transacted:
    """Return the transaction of one run of a claimed job."""
    name = adapter or job_class.adapter
    transaction = app.adapter(name).transaction(record, asynchronous=is_async(job_class))
    return Transacted(app, name, transaction, record)


def transacted_inline(app: Sapwood, job_class: JobClass, connection: object | None) -> Transacted:
    """Return the transaction of a job that runs here and now: its own, or a savepoint in its caller's."""
    name = job_class.adapter
    lent = connection if connection is not None else app.joined(name)
    transaction = app.adapter(name).transaction(None, connection=lent, asynchronous=is_async(job_class))
    return Transacted(app, name, transaction, None)


def within(context: JobContext, work: Transacted) -> JobContext:
    """Return the context of a run with the transaction that it works in."""
    return replace(context, transaction=work.transaction)


def check(job_class: JobClass, adapter: BaseAdapter) -> None:
    """See that the jobs of a transactional class can be so where they are kept.

    Raises:
        ConfigurationError: they cannot.
    """
    needed = "async transaction" if is_async(job_class) else "transaction"
    if needed in adapter.capabilities:
        return
    if "transaction" in adapter.capabilities:
        raise ConfigurationError(
            f"{job_class.__qualname__} is a coroutine, and cannot be transactional in {adapter.describe()}",
            why="that is reached by a synchronous driver only",
            mend="SQLAlchemyAdapter(create_async_engine(...)), or write def perform",
        )
    raise ConfigurationError(
        f"{job_class.__qualname__} cannot be transactional in {adapter.describe()}",
        why="what keeps its jobs has no transactions that a job could work in",
        mend="keep them in a database with SQLAlchemyAdapter, or leave out transactional=True",
    )


def _as_written(outcome: Outcome) -> Outcome:
    return Succeeded(outcome.keep, outcome.result, written=True) if isinstance(outcome, Succeeded) else outcome
