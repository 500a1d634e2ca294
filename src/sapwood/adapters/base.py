"""The contract of an adapter: the place where jobs are kept, as a dozen verbs of the domain.

To write an adapter, subclass :class:`BaseAdapter`, write the abstract verbs, and run
``sapwood.testing.conformance`` against it: the suite is the specification, these docstrings are its summary.

Rules that hold for every verb:

* **Fence.** A transition out of ``running`` happens only where the row still has the id, the ``lock_token``, the state
  ``running`` and the owner that the caller names; every other transition only where id, state and ``lock_token`` are
  those of the record that the caller saw. What does not match is left alone and reported, never an error.
* **All or nothing.** A verb is one transaction. ``enqueue`` with a ``connection`` is part of the caller's.
* **One clock.** ``now=None`` means the store's own clock; tests pass an aware datetime.
* **Transitions** are those of :mod:`sapwood.lifecycle`; an adapter decides when they happen, not what they mean.
* **Threads.** All verbs may be called from any thread.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from msgspec import Struct

from sapwood.errors import ConfigurationError, TransactionMisused
from sapwood.lifecycle import Edit, Outcome, Released, Succeeded, Trace
from sapwood.page import Claim, Page
from sapwood.record import JobAttempt, JobDraft, JobRecord, JobState, WorkerRecord


class Settlement(Struct, frozen=True):
    """A claimed record, as the claim returned it, and what came of it."""

    record: JobRecord
    outcome: Outcome

    @property
    def is_written(self) -> bool:
        """Whether the outcome is in the store already."""
        return isinstance(self.outcome, Succeeded | Released) and self.outcome.written


class Transaction(ABC):
    """The transaction that a job works in and that settles it. It opens when it is asked for.

    It is the job's alone, on a connection of its own, and ends by :meth:`commit` or :meth:`rollback`, once. The
    asynchronous verbs are for those that were made for a coroutine.
    """

    is_open: bool = False
    """Whether it has been opened, and not ended."""

    @abstractmethod
    def connection(self) -> Any:
        """Return its connection. The job can neither commit, roll back nor close it."""

    @abstractmethod
    def session(self) -> Any:
        """Return the session on that connection, always the same; its ``commit`` ends a savepoint and no more."""

    @abstractmethod
    def commit(self, outcome: Outcome | None) -> bool:
        """Flush the session, settle the job as the last act, and commit; None settles nothing.

        Returns:
            False where the fence found the job in other hands: everything is rolled back.

        Raises:
            CommitUnknown: the commit was not answered. Everything else that is raised has rolled back.
        """

    @abstractmethod
    def rollback(self) -> None:
        """Undo everything. Never raises."""

    @abstractmethod
    def joinable(self) -> object:
        """Return the connection that jobs enqueued meanwhile are to join, while it is open."""

    async def aconnection(self) -> Any:
        """Return its connection, for a coroutine."""
        raise wrong_colour("with")

    async def asession(self) -> Any:
        """Return its session, for a coroutine."""
        raise wrong_colour("with")

    async def acommit(self, outcome: Outcome | None) -> bool:
        """Do what :meth:`commit` does."""
        return self.commit(outcome)

    async def arollback(self) -> None:
        """Do what :meth:`rollback` does."""
        self.rollback()


def wrong_colour(word: str) -> TransactionMisused:
    """Return the error for who uses a transaction ``with``, or ``without``, await and should not."""
    return TransactionMisused(
        f"this transaction is not to be used {word} await",
        why="perform decides: a coroutine works by an asynchronous driver, a function by a synchronous one",
        mend="self.context.connection and .session in def perform; "
        "await self.context.aconnection() and .asession() in async def perform",
    )


WITHIN: ContextVar[tuple[Transaction, ...]] = ContextVar("sapwood_within", default=())
"""The transactions of the jobs that run here: a verb that would wait for one of them would wait for ever."""


class Exchange(Struct, frozen=True):
    """The answer to :meth:`BaseAdapter.exchange`."""

    settled: frozenset[int]
    """Ids whose outcome was written. An id that is missing was fenced: another worker owns the job, or it is gone."""

    claimed: Sequence[JobRecord]
    """The jobs now running under the worker, most urgent first."""

    alive: bool
    """False: the worker's row is gone, it was declared dead. It must stop, end what runs, and take a new id."""


class JobFilter(Struct, frozen=True, kw_only=True):
    """Which jobs to read. Every field that is not None must match."""

    states: Collection[JobState] | None = None
    queues: Collection[str] | None = None
    jobs: Collection[str] | None = None
    """Stored names of classes."""


class BaseAdapter(ABC):
    """Where jobs are kept."""

    capabilities: frozenset[str] = frozenset()
    """What this adapter can do beyond the contract: ``"join"`` (``enqueue`` in the caller's transaction),
    ``"transaction"`` (jobs may work in the transaction that settles them), ``"async transaction"`` (coroutines too)."""

    # --- life -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def describe(self) -> str:
        """Return the address of the store, for people, with any password masked."""

    @abstractmethod
    def migrate(self) -> Sequence[str]:
        """Bring the tables up to this release; return the names of the steps taken. Repeating it changes nothing."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and files. The next verb opens them again."""

    def address(self) -> Mapping[str, Any] | None:
        """Return what another process needs to open the same store, as JSON holds it; None where it cannot.

        It may hold a password: it travels by a pipe and is never shown.
        """
        return None

    @property
    def is_volatile(self) -> bool:
        """True: what it keeps ends with this process, so that no other can work it off."""
        return False

    @property
    def proves_death(self) -> bool:
        """True: :meth:`is_dead` is certain of every worker, so that none is taken for dead because it cannot beat."""
        return False

    # --- the application --------------------------------------------------------------------------------------------

    @abstractmethod
    def enqueue(
        self, drafts: Sequence[JobDraft], *, connection: object | None = None, now: datetime | None = None
    ) -> Sequence[int]:
        """Store ``drafts`` and return their ids in the same order.

        With ``connection`` the rows are part of its open transaction: never committed, rolled back or closed here, and
        no other connection is touched.

        Raises:
            UnsupportedConnection: the adapter cannot join that kind of connection.
            ForeignConnection: it leads to another database.
        """

    # --- a worker's life --------------------------------------------------------------------------------------------

    @abstractmethod
    def register(self, worker: WorkerRecord, *, now: datetime | None = None) -> None:
        """Make the worker known. Committed before its first claim."""

    @abstractmethod
    def beat(self, workers: Collection[str], *, now: datetime | None = None) -> frozenset[str]:
        """Raise the beat of each of these workers by one; return those that are known.

        One that is missing was declared dead: its row is gone. Without any worker this only shows that the store can
        be written to.
        """

    @abstractmethod
    def unregister(self, worker: str, *, now: datetime | None = None) -> Sequence[JobRecord]:
        """Forget a worker that ends in good order; what still runs under it is released. Return what was released.

        Where its row is gone, it was declared dead: nothing is released, its jobs are for the rescuer.
        """

    # --- the way of a job -------------------------------------------------------------------------------------------

    @abstractmethod
    def claim(
        self,
        worker: str,
        *,
        queues: Sequence[str] | None = None,
        limit: int,
        alone: bool = False,
        now: datetime | None = None,
    ) -> Exchange:
        """Take up to ``limit`` ready jobs of ``queues`` (None: all) for ``worker``, in the order priority, run_at, id.

        Guarded by the worker's row: where that is gone, nothing is taken and ``alive`` is False. Jobs that a death has
        set apart (``alone``) are taken only with ``alone=True``, and then no others.
        """

    def transaction(
        self, record: JobRecord | None, *, connection: object | None = None, asynchronous: bool = False
    ) -> Transaction:
        """Return the transaction for one run of a claimed job, not yet opened.

        Args:
            record: the job as it was claimed, None for one that is not stored.
            connection: a caller's connection, in whose transaction the job is to work, by a savepoint.
            asynchronous: for a coroutine.

        Raises:
            ConfigurationError: the adapter has no such transactions.
        """
        del record, connection
        raise ConfigurationError(
            f"jobs kept in {self.describe()} cannot be transactional",
            why="what keeps them has no transaction that "
            + ("a coroutine" if asynchronous else "a job")
            + " could use",
            mend="keep them in a database with SQLAlchemyAdapter, or leave out transactional=True",
        )

    @abstractmethod
    def mark(self, worker: str, record: JobRecord, *, now: datetime | None = None) -> bool:
        """Note, for good, that the one run of a job which runs under ``worker`` begins.

        False where that claim is not the worker's any more, or where a run began before: then it must not run.
        """

    @abstractmethod
    def settle(self, worker: str, settlements: Sequence[Settlement], *, now: datetime | None = None) -> frozenset[int]:
        """Write the outcomes of jobs that run under ``worker``; return the ids that were written.

        Failed tries leave a :class:`JobAttempt`. A row that goes takes its attempts with it.
        """

    def exchange(
        self,
        worker: str,
        settlements: Sequence[Settlement],
        *,
        queues: Sequence[str] | None = None,
        limit: int,
        alone: bool = False,
        now: datetime | None = None,
    ) -> Exchange:
        """Settle, then claim; in one transaction where the store can."""
        written = self.settle(worker, settlements, now=now)
        taken = self.claim(worker, queues=queues, limit=limit, alone=alone, now=now)
        return Exchange(settled=written, claimed=taken.claimed, alive=taken.alive)

    @abstractmethod
    def promote(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        """Make up to ``limit`` due jobs ready, urgent first; return how many. Called until it returns less."""

    @abstractmethod
    def release(self, worker: str, *, held: Collection[Claim] = (), now: datetime | None = None) -> Sequence[JobRecord]:
        """Give back every job that runs under ``worker`` except the claims it holds; return what was released.

        This is how a worker resolves a claim whose answer was lost.
        """

    @abstractmethod
    def ready_queues(self, *, alone: bool = False) -> Collection[str]:
        """Return the queues that have ready jobs, or with ``alone`` those with jobs that a death has set apart."""

    def page(self, worker: str, *, slots: int) -> Page | None:
        """Return the page in which a registered worker notes its claims, where the store has a place for it.

        Such notes are readable by :meth:`notes` of whoever proves the worker's death. Where there is no place, None:
        the worker's parent may keep the notes, if it has one.
        """
        del worker, slots
        return None

    # --- the dead ---------------------------------------------------------------------------------------------------

    def descriptors(self, worker: str) -> Collection[int]:
        """Return what must stay open in the worker's process for as long as it lives: without it others take its jobs.

        A worker that finds one of these closed ends at once. For an adapter without any, nothing is to be done.
        """
        del worker
        return ()

    def is_dead(self, worker: WorkerRecord) -> bool | None:
        """Return True where the death is proven, False where life is, None where only the beat can tell."""
        del worker
        return None

    def notes(self, worker: WorkerRecord) -> Mapping[Claim, Trace] | None:
        """Return what a dead worker noted of its jobs, None where its notes are out of reach."""
        del worker
        return None

    def pardon(self, worker: str) -> None:
        """Note in a worker's page that it is about to be ended on purpose: its end is no death, and spends no try."""
        del worker

    def first_deadline(self, worker: str) -> float | None:
        """Return when the first of the jobs that a living worker runs must have ended, by its page.

        By :func:`sapwood.timing.boot_time`; None where none of them must, or the store keeps no page.
        """
        del worker
        return None

    def condemn(self, worker: str, *, at: float) -> None:
        """Note in a worker's page that it is about to be ended for what must have ended before ``at``.

        That has timed out; all else is pardoned.
        """
        del worker, at

    @abstractmethod
    def rescue(
        self,
        worker: str,
        *,
        beat: int | None = None,
        notes: Mapping[Claim, Trace] | None = None,
        now: datetime | None = None,
    ) -> Sequence[JobRecord] | None:
        """Take back the jobs of a worker that is proven dead; return them as they now are.

        Its row is deleted first, so that a claim of its own which is still under way finds no guard. ``beat``, where
        given, must be the one in the row: otherwise it lives, and None is returned. None too where there is no such
        worker, and while a transaction of its own holds the row: it may be frozen there, so nobody waits, and another
        look takes its jobs.

        ``notes`` tells of each claim how far it came; a claim without a note was not started; without ``notes`` at
        all, nothing is known.
        """

    @abstractmethod
    def sweep(self, *, now: datetime | None = None) -> Sequence[JobRecord]:
        """Take back jobs that run under an id without a worker row; return them as they now are."""

    # --- operators --------------------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, id: int) -> JobRecord | None:
        """Return the job, or None."""

    @abstractmethod
    def jobs(self, filter: JobFilter | None = None, *, after: int = 0, limit: int = 100) -> Sequence[JobRecord]:
        """Return up to ``limit`` jobs with an id above ``after``, by id."""

    @abstractmethod
    def attempts(self, id: int) -> Sequence[JobAttempt]:
        """Return the failed tries of a job, oldest first."""

    @abstractmethod
    def counts(self) -> Mapping[tuple[str, JobState], int]:
        """Return how many jobs there are per queue and state."""

    @abstractmethod
    def next_run_at(self) -> datetime | None:
        """Return the earliest ``run_at`` of a scheduled job, None where there is none."""

    @abstractmethod
    def workers(self) -> Sequence[WorkerRecord]:
        """Return the workers that are known."""

    @abstractmethod
    def retry(self, seen: Sequence[JobRecord], *, now: datetime | None = None) -> frozenset[int]:
        """Make failed, cancelled or scheduled jobs ready now, with at least one more try; return the ids changed."""

    @abstractmethod
    def cancel(self, seen: Sequence[JobRecord], *, now: datetime | None = None) -> frozenset[int]:
        """Cancel jobs that wait; return the ids changed."""

    @abstractmethod
    def edit(self, seen: Sequence[JobRecord], edit: Edit, *, now: datetime | None = None) -> frozenset[int]:
        """Change jobs that wait; return the ids changed."""

    @abstractmethod
    def delete(self, seen: Sequence[JobRecord]) -> frozenset[int]:
        """Delete jobs that do not run, with their history; return the ids deleted."""

    @abstractmethod
    def clear(self, filter: JobFilter | None = None, *, running: bool = False) -> int:
        """Delete all jobs that match, running ones only with ``running``; return how many."""

    # --- waking up --------------------------------------------------------------------------------------------------

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake``, from any thread, soon after jobs may have become ready; return a function that ends it.

        A wake-up only shortens the wait: workers poll all the same, so an adapter may leave this out.
        """
        del wake
        return lambda: None

    def tell(self) -> None:  # noqa: B027 - see listen
        """Wake who listens: jobs were committed in the transaction of a job."""
