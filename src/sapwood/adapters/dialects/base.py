"""What the SQLAlchemy adapter asks of a dialect."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    ExceptionContext,
    Row,
    Select,
    Table,
    Text,
    cast,
    event,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.exc import DBAPIError

from sapwood.adapters.base import Transaction
from sapwood.errors import ForeignConnection, SchemaOutdated, StoreError, StoreReadOnly, StoreUnavailable
from sapwood.lifecycle import Trace
from sapwood.page import Claim, Page

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet, which an application without asyncio has not

PLAIN: Mapping[str, Any] = MappingProxyType({"schema_translate_map": None, "stream_results": False})
"""Execution options for a caller's connection: what the caller has set for its own statements is not meant for ours."""

LATE = timedelta(seconds=10)
"""A job that becomes ready up to so long after its ``run_at`` is found by the next claim in any case."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What a claim is to take."""

    jobs: Table
    queues: Sequence[str] | None
    """None: all of them, where the dialect :meth:`~Dialect.spans_queues`."""

    limit: int
    alone: bool


class Head(NamedTuple):
    """A priority that jobs wait with, and the earliest ``run_at`` of them."""

    priority: int
    run_at: datetime
    alone: bool = False


class Swap(Struct, frozen=True, kw_only=True):
    """What a dialect's own statement is to do."""

    wanted: Wanted
    workers: Table
    worker: str
    gone: Sequence[Claim]
    """Claims whose rows go, where they still run under the worker."""

    now: datetime | None
    """None: the store's clock."""


class Swapped(Struct, frozen=True, kw_only=True):
    """What it did."""

    deleted: Sequence[int]
    claimed: Sequence[Sequence[Any]]
    """The rows as they now are, in the order of the columns."""

    alive: bool


class Greeting(NamedTuple):
    """What a connection is asked before it is used for the first time."""

    now: datetime
    """The store's time."""

    installation: str | None = None
    """The id of the installation that it leads to, None without ids."""

    oldest_reader: str | None = None
    """The oldest schema version whose release can work with the tables, None where it was not asked for."""


class Busy(StoreUnavailable):
    """Somebody keeps others from writing."""


class Pooling(NamedTuple):
    """How many connections a process keeps to a server."""

    kept: int
    """So many stay open once they were needed."""

    most: int
    """Whoever needs one more waits."""


def ready(jobs: Table, *, alone: bool) -> ColumnElement[bool]:
    """Return the condition for what can be claimed."""
    # Written out, not bound: a partial index serves only a condition that the planner can read.
    return (jobs.c.state == literal_column("'ready'")) & (jobs.c.alone == literal_column("1" if alone else "0"))


def scheduled(jobs: Table) -> ColumnElement[bool]:
    """Return the condition for what waits until it is due."""
    return jobs.c.state == literal_column("'scheduled'")


class Dialect(ABC):
    """One database, told in its own way. Verbs are not known here, only how to connect, order, lock and tell time."""

    names: ClassVar[frozenset[str]]
    """What SQLAlchemy calls such a database."""

    migrates_itself: ClassVar[bool] = False
    """True: the tables are made at first use. False: somebody runs the migrations."""

    tells: ClassVar[bool] = False
    """True: :meth:`tell` reaches other processes, by a connection of its own."""

    one_writer: ClassVar[bool] = False
    """True: an open transaction that writes keeps everybody else from it."""

    order: Sequence[str] = ("priority", "run_at", "id")
    """What is claimed and promoted first."""

    exchanges: ClassVar[bool] = False
    """True: there is a statement of its own for :meth:`exchange`."""

    @property
    def is_volatile(self) -> bool:
        """True: the database ends with this process."""
        return False

    @property
    def proves_death(self) -> bool:
        """True: this host can tell of every worker whether it lives."""
        return False

    @property
    @abstractmethod
    def url(self) -> URL:
        """Where the database is, password and all."""

    @abstractmethod
    def describe(self) -> str:
        """Return the address, for people, with any password masked."""

    @abstractmethod
    def connect(self, pooling: Pooling) -> Engine:
        """Return a new engine of our own."""

    def watch(self, engine: Engine) -> None:
        """Give up the connections of an engine that cannot write, so that later verbs connect anew.

        A file that was opened where it could not be written stays so, and a server that lost its role is the old one.
        """

        def judged(context: ExceptionContext) -> None:
            error = context.sqlalchemy_exception
            if isinstance(error, DBAPIError) and isinstance(self.translated(error), StoreReadOnly):
                context.is_disconnect = not self.is_volatile

        event.listen(engine, "handle_error", judged)

    def room(self, connection: Connection) -> int | None:
        """Return how many more connections the server would give, None where that is not known or does not matter."""
        del connection
        return None

    @abstractmethod
    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Return one transaction that may write, committed at its end."""

    def patient(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Return a transaction that may write, for statements that take their time: on all rows, or on the tables."""
        return self.writing(engine)

    def beating(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Return a transaction for a beat, which cannot wait for long.

        Raises:
            Busy: somebody keeps others from writing.
        """
        return self.writing(engine)

    @abstractmethod
    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Return one transaction that only reads."""

    # --- the transactions of jobs -------------------------------------------------------------------------------------

    @abstractmethod
    def jobs_engine(self) -> Engine:
        """Return a new engine for the transactions that jobs work in: their time is their own, so is what they set."""

    @abstractmethod
    def jobs_async_engine(self, url: URL) -> "AsyncEngine":
        """Return the same by the driver of ``url``, for coroutines."""

    def turn(self, holder: Transaction) -> AbstractContextManager[None]:
        """Wait until a job's transaction may begin, and keep others from it, where there can be but one."""
        del holder
        return nullcontext()

    def limit(self, connection: Connection) -> None:  # noqa: B027 - SQLite has none
        """Set our own time-outs for the rest of a job's transaction: from here on it holds the row of the job."""

    @abstractmethod
    def clock(self, connection: Connection) -> datetime:
        """Return what time it is by the store's clock."""

    @abstractmethod
    def among(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        """Return the condition that a column is one of many ids: one parameter, however many they are."""

    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column as text that can be read whatever is in it, for :meth:`from_text`."""
        return cast(column, Text)

    def from_text(self, text: str | None) -> str | None:
        """Return the text that :meth:`as_text` asked for."""
        return text

    # --- finding ------------------------------------------------------------------------------------------------------

    def distinct(
        self, connection: Connection, column: ColumnElement[Any], condition: ColumnElement[bool]
    ) -> Sequence[Any]:
        """Return a column's distinct values, by one look into its index for each."""
        return connection.scalars(_loose(column, condition)).all()

    def spans_queues(self, *, alone: bool) -> bool:
        """Say whether one index holds the ready jobs of all queues in order, so that queues need not be named."""
        del alone
        return False

    def came_late(self) -> None:  # noqa: B027 - most dialects remember nothing
        """Forget what was learned of where nothing is ready: a job that has been due for long has become so."""

    def is_ready(self, connection: Connection, wanted: Wanted) -> bool:
        """Say whether there is anything to claim. Not asked where the dialect ``exchanges``."""
        raise NotImplementedError

    def ready_rows(self, connection: Connection, wanted: Wanted) -> Sequence[Row[Any]]:
        """Return the first ready rows, locked so that nobody else takes them before this transaction ends.

        Not asked where the dialect ``exchanges``.
        """
        raise NotImplementedError

    def heads(self, connection: Connection, jobs: Table) -> Sequence[Head]:
        """Return of each priority that jobs wait with the earliest, by one look into the index for each."""
        priorities = _loose(jobs.c.priority, scheduled(jobs)).subquery()
        first = select(func.min(jobs.c.run_at)).where(scheduled(jobs), jobs.c.priority == priorities.c.value)
        heads = select(priorities.c.value, first.scalar_subquery())
        return [Head(*row) for row in connection.execute(heads)]

    @abstractmethod
    def due(
        self, connection: Connection, jobs: Table, heads: Sequence[Head], limit: int, now: datetime
    ) -> Sequence[int]:
        """Return the first due ids, urgent first; locked, and without those that somebody else has locked.

        ``heads`` are those that are due.
        """

    def due_reads(self, jobs: Table, heads: Sequence[Head], now: datetime) -> Sequence[Select[Any]]:
        """Return one read for each priority, urgent first, in the order of the index."""
        waiting = select(*(jobs.c[name] for name in self.order)).where(scheduled(jobs), jobs.c.run_at <= now)
        return [waiting.where(jobs.c.priority == head.priority) for head in heads]

    # --- writing ------------------------------------------------------------------------------------------------------

    def exchange(self, connection: Connection, exchange: Swap) -> Swapped:
        """Delete the done and claim the next in one statement of the database's own, where it ``exchanges``."""
        raise NotImplementedError

    def insert(self, connection: Connection, jobs: Table, rows: Sequence[Mapping[str, Any]]) -> Sequence[int]:
        """Insert rows; return their ids in the same order."""
        if len(rows) > 1 and connection.dialect.insert_executemany_returning_sort_by_parameter_order:
            stored = insert(jobs).returning(jobs.c.id, sort_by_parameter_order=True)
            return tuple(connection.scalars(stored, rows, execution_options=PLAIN))
        keys = (connection.execute(insert(jobs), row, execution_options=PLAIN).inserted_primary_key for row in rows)
        return tuple(int(key[0]) for key in keys if key)

    # --- the caller's connection --------------------------------------------------------------------------------------

    def greet(self, connection: Connection, meta: Table) -> Greeting:
        """Return the store's time, and which tables a caller's connection leads to.

        Whatever comes of it, the caller's transaction can go on.

        Raises:
            ForeignConnection: it leads to another database.
            SchemaMissing: there are no tables, and it is not for us to make them.
        """
        if connection.dialect.name not in self.names:
            raise ForeignConnection(
                f"the connection leads to {connection.dialect.name}",
                why=f"this adapter keeps its jobs in {self.describe()}",
                mend="hand in a connection to that database, or leave connection= out",
            )
        return self._greeted(connection, meta)

    @abstractmethod
    def _greeted(self, connection: Connection, meta: Table) -> Greeting:
        """Greet a connection to this kind of database."""

    def begin_for_caller(self, connection: Connection) -> None:  # noqa: B027 - most drivers do so by themselves
        """Begin the caller's transaction, where the driver would only do so before the next insert."""

    @abstractmethod
    def is_missing_table(self, error: DBAPIError) -> bool:
        """Say whether a statement failed because the tables are not there."""

    @abstractmethod
    def is_missing_column(self, error: DBAPIError) -> bool:
        """Say whether a statement failed because the tables lack what a later release has added."""

    def schema_outdated(self, why: str) -> SchemaOutdated:
        """Return the error for tables that lack what this release needs."""
        return SchemaOutdated(
            f"{self.describe()} has tables of an earlier release",
            why=why,
            mend="run `sapwood migrate`; workers of the earlier release go on meanwhile",
        )

    def is_conflict(self, error: DBAPIError) -> bool:
        """Say whether a transaction of ours gave way to another and may be repeated as a whole."""
        del error
        return False

    def translated(self, error: DBAPIError) -> StoreError | None:
        """Return the named error for what a driver reported, None where there is no name for it."""
        if error.connection_invalidated:
            return StoreUnavailable(f"lost the connection to {self.describe()}", why=str(error.orig))
        return None

    def alone_to_migrate(self, connection: Connection) -> None:  # noqa: B027 - SQLite has one writer anyway
        """Wait until nobody else migrates, and keep others from it to the end of the transaction."""

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after commits of others, where the database tells; return a function that ends it."""
        del wake
        return lambda: None

    def tell(self) -> None:  # noqa: B027 - not every database has to be told
        """Let listeners in other processes know that something was committed."""

    def close(self) -> None:  # noqa: B027 - not every dialect has some
        """Let go of files."""

    # --- workers on the same host -------------------------------------------------------------------------------------

    def worker_began(self, worker: str) -> None:  # noqa: B027 - not every dialect can prove it
        """Prepare what proves this worker's life. Called before its row is visible."""

    def worker_ended(self, worker: str) -> None:  # noqa: B027 - not every dialect has some
        """Remove what :meth:`worker_began` or a dead worker left."""

    def page(self, worker: str, *, slots: int) -> Page | None:
        """Return the page for this worker's notes, None where this host has no place for it."""
        del worker, slots
        return None

    def descriptors(self, worker: str) -> Collection[int]:
        """Return what this process must keep open as long as the worker lives."""
        del worker
        return ()

    def pardon(self, worker: str) -> None:  # noqa: B027 - not every dialect keeps pages
        """Note in a worker's page that it is ended on purpose."""

    def first_deadline(self, worker: str) -> float | None:
        """Return when the first of the jobs that a worker runs must have ended, None for never or out of reach."""
        del worker
        return None

    def condemn(self, worker: str, *, at: float) -> None:  # noqa: B027 - as above
        """Note in a worker's page that it is ended for what must have ended before ``at``."""

    def is_dead(self, worker: str) -> bool | None:
        """Return True where the death is proven, False where life is, None where this host cannot tell."""
        del worker
        return None

    def notes(self, worker: str) -> Mapping[Claim, Trace] | None:
        """Return what a dead worker noted, None where that is out of reach."""
        del worker
        return None


def _loose(column: ColumnElement[Any], condition: ColumnElement[bool]) -> Select[Any]:
    """Return the statement for a column's distinct values, by one look into its index for each (a loose index scan)."""
    first = select(func.min(column).label("value")).where(condition)
    found = first.cte("loose", recursive=True)
    following = select(func.min(column)).where(condition, column > found.c.value).scalar_subquery()
    found = found.union_all(select(following).where(found.c.value.is_not(None)))
    return select(found.c.value).where(found.c.value.is_not(None))
