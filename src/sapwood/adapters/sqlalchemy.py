"""Jobs in a SQL database: every verb once, in SQLAlchemy's words. What databases differ in is in ``dialects``."""

import functools
import importlib
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from sapwood import lifecycle
from sapwood.adapters import migrations
from sapwood.adapters.base import BaseAdapter, Exchange, JobFilter, Settlement, Transaction
from sapwood.adapters.dialects.base import LATE, Busy, Dialect, Pooling, Swap, Wanted, ready
from sapwood.adapters.dialects.sqlite import Durability, SQLiteDialect
from sapwood.adapters.joining import AfterCommit, Installation, borrowed
from sapwood.adapters.rows import UNREADABLE, Sieve, attempt_of, record_of, worker_of
from sapwood.adapters.tables import Tables
from sapwood.adapters.transaction import AsyncJoined, AsyncWork, Joined, Means, Work
from sapwood.errors import ConfigurationError, StoreUnavailable, UnsupportedStore
from sapwood.lifecycle import Edit, Outcome, Succeeded, Trace
from sapwood.page import Claim, Page
from sapwood.record import JobAttempt, JobDraft, JobRecord, JobState, WorkerRecord

_FIXED = frozenset({"id", "job", "created_at", "lock_token"})
"""Columns that no transition but a claim writes."""

_REPEATS = 8
"""How often a transaction that gave way to another is repeated before its error is told."""

_KEPT_CONNECTIONS = 5
_MOST_CONNECTIONS = 15
"""For a process that only enqueues."""

_OWN_CONNECTIONS = 3
"""Those of a worker besides its jobs': its loop, its wake-ups to others, and on PostgreSQL the one it listens on."""

_SIEVING_PAUSE = 60.0
_SHOWN = 20

_log = logging.getLogger("sapwood")

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet, which an application without asyncio has not

_EXTRAS = {
    "postgresql": ("psycopg", "postgresql"),
    "mysql": ("pymysql", "mysql"),
    "mariadb": ("pymysql", "mysql"),
}
"""For each server the driver that is needed, and the extra that brings it."""

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


class _Conflict(StoreUnavailable):
    """A dead-lock, a lock that was waited for too long, or a failed serialisation: nothing was written."""


def _repeated(verb: _Verb) -> _Verb:
    """Repeat a verb, which is one transaction, as a whole when it gave way to another."""

    @functools.wraps(verb)
    def repeating(*args: Any, **kwargs: Any) -> Any:
        for repeat in range(_REPEATS):
            try:
                return verb(*args, **kwargs)
            except _Conflict:
                time.sleep(0.005 * 2**repeat * random.random())  # noqa: S311 - a spread, not a secret
        return verb(*args, **kwargs)

    return cast("_Verb", repeating)


def _sifted(verb: _Verb) -> _Verb:
    """Do a verb again where a row that nobody can read was in its way, and has been set aside."""

    @functools.wraps(verb)
    def sifting(self: "SQLAlchemyAdapter", *args: Any, **kwargs: Any) -> Any:
        try:
            return verb(self, *args, **kwargs)
        except UNREADABLE:
            if not self.set_unreadable_aside():
                raise
        return verb(self, *args, **kwargs)

    return cast("_Verb", sifting)


class SQLAlchemyAdapter(BaseAdapter):
    """Keeps jobs in a SQL database.

    Args:
        database: a URL, or an engine whose URL is taken. No listener or setting is ever attached to an engine that
            was passed in: the adapter makes one of its own. With an asynchronous engine, coroutines can be
            transactional, by its driver.
        prefix: what the names of the tables begin with.
        schema: the schema of the tables, where the database has schemas.
        durability: SQLite only. ``"full"`` survives a power cut; with ``"normal"`` one may undo the last commits.
        pool_size: servers only. The most connections of this process, besides one on which a worker listens; who needs
            one more waits. None: as many as its workers can use at once, and at least 15.

    Raises:
        ConfigurationError: the URL or one of its options cannot be used, or a name is no identifier.
        UnsupportedStore: a database that no dialect is written for.
    """

    capabilities = frozenset({"join", "transaction"})

    def __init__(
        self,
        database: "str | URL | Engine | AsyncEngine",
        *,
        prefix: str = "background_",
        schema: str | None = None,
        durability: Durability = "full",
        pool_size: int | None = None,
    ) -> None:
        if pool_size is not None and (type(pool_size) is not int or pool_size < 1):
            raise ConfigurationError(f"pool_size is {pool_size!r}", mend="a number of connections, 1 or more")
        url = _url(database)
        self._dialect = _dialect(url, durability)
        self._async_url = url if hasattr(database, "sync_engine") else None
        if self._async_url is not None:
            self.capabilities = self.capabilities | {"async transaction"}
        self._jobs_engine: Engine | None = None
        self._jobs_async_engine: AsyncEngine | None = None
        self._tables = Tables(prefix, schema, database=self._dialect.url.get_backend_name())
        self._prefix, self._durability = prefix, durability
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._migrated = False
        self._pid = 0
        self._pool_size = pool_size
        self._slots: dict[str, int] = {}
        self._next_sieving = 0.0
        self._provided = 0
        self._wakes: dict[object, Callable[[], None]] = {}
        self._installation = Installation()
        self._after_commit = AfterCommit(self._wake_joined)

    def __repr__(self) -> str:
        return f"SQLAlchemyAdapter({self.describe()!r})"

    # --- life -------------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """Return the address of the database, with any password masked."""
        return self._dialect.describe()

    @property
    def is_volatile(self) -> bool:
        """True for a SQLite database in memory."""
        return self._dialect.is_volatile

    @property
    def proves_death(self) -> bool:
        """True for a SQLite file."""
        return self._dialect.proves_death

    def address(self) -> Mapping[str, Any] | None:
        """Return the URL and all else that makes an adapter of the same tables; None where they are in memory."""
        if self.is_volatile:
            return None
        return {
            "database": self._dialect.url.render_as_string(hide_password=False),
            "prefix": self._prefix,
            "schema": self._tables.metadata.schema,
            "durability": self._durability,
            "pool_size": self._pool_size,
        }

    @property
    def migrates_itself(self) -> bool:
        """Whether the tables are made, and brought up to date, at first use."""
        return self._dialect.migrates_itself

    @property
    def tables(self) -> Tables:
        """The tables: their names, and what an application tells its own migration tool of them."""
        return self._tables

    def migrate(self) -> Sequence[str]:
        """Bring the tables up to this release; return the names of the steps taken."""
        with self._opening, self._named_errors():
            with self._dialect.patient(self._connected()) as connection:
                self._dialect.alone_to_migrate(connection)
                steps = migrations.migrate(connection, self._tables)
            self._migrated = self._dialect.migrates_itself
            return steps

    def pending_migrations(self) -> Sequence[str]:
        """Return the names of the steps that :meth:`migrate` would take."""
        with self._opening, self._named_errors(), self._dialect.reading(self._connected()) as connection:
            return [step.name for step in migrations.pending(connection, self._tables)]

    def migration_status(self) -> migrations.Status:
        """Return where the tables stand; those of a later release are told of too."""
        with self._opening, self._named_errors(), self._dialect.reading(self._connected()) as connection:
            return migrations.status(connection, self._tables)

    def migration_sql(self) -> str:
        """Return the statements that a fresh database needs, for other migration tools."""
        return migrations.sql(self._connected().dialect, self._tables)

    def close(self) -> None:
        """Let go of connections and files. The next verb opens them again."""
        with self._opening:
            if self._engine is not None and self._pid == os.getpid():
                # The dialect's threads use the engine's connections: they end first.
                self._dialect.close()
                self._engine.dispose()
            # Neither keeps a connection.
            self._engine = self._jobs_engine = self._jobs_async_engine = None
            self._migrated = False
            self._installation = Installation()

    # --- the application --------------------------------------------------------------------------------------------

    def enqueue(
        self, drafts: Sequence[JobDraft], *, connection: object | None = None, now: datetime | None = None
    ) -> Sequence[int]:
        """Store ``drafts``; in the caller's transaction, where a ``connection`` is given.

        Args:
            drafts: the jobs.
            connection: a Session, scoped_session or Connection of SQLAlchemy, or a driver's own connection.
            now: the present, None for the store's clock.
        """
        if not drafts:
            return ()
        if connection is not None:
            lent = borrowed(connection)
            ids = self._enqueue_joined(drafts, lent.connection, now)
            if lent.session is not None:
                self._after_commit.expect(lent.session)
            return ids
        ids = self._enqueue_own(drafts, now)
        self._wake()
        return ids

    @_repeated
    def _enqueue_own(self, drafts: Sequence[JobDraft], now: datetime | None) -> Sequence[int]:
        with self._writing() as connection:
            return self._insert(connection, drafts, self._moment(connection, now))

    def _enqueue_joined(
        self, drafts: Sequence[JobDraft], connection: Connection, now: datetime | None
    ) -> Sequence[int]:
        with self._named_errors():
            greeting = self._dialect.greet(connection, self._tables.meta)
            self._installation.met(greeting.installation)
            migrations.refuse_too_new(greeting.oldest_reader)
            moment = now or greeting.now
            try:
                return self._insert(connection, drafts, moment)
            except DBAPIError as error:
                lacking = self._dialect.is_missing_table(error) or self._dialect.is_missing_column(error)
                if not (self._dialect.migrates_itself and lacking):
                    raise
            # The very first job: another connection would wait for the caller's own lock, so the tables are made here.
            self._dialect.begin_for_caller(connection)
            migrations.migrate(connection, self._tables)
            return self._insert(connection, drafts, moment)

    def _insert(self, connection: Connection, drafts: Sequence[JobDraft], now: datetime) -> Sequence[int]:
        # A fresh job has no mark, and the column may not be there yet: an application enqueues before the migration.
        rows = [_row(lifecycle.drafted(draft, id=0, now=now), without={"id", "started_at"}) for draft in drafts]
        if any(now - row["run_at"] > LATE for row in rows):
            self._dialect.came_late()
        return self._dialect.insert(connection, self._tables.jobs, rows)

    # --- a worker's life --------------------------------------------------------------------------------------------

    @_repeated
    def register(self, worker: WorkerRecord, *, now: datetime | None = None) -> None:
        """Make the worker known, once its life can be proven."""
        self._slots[worker.id] = worker.concurrency
        self._provide()
        self._connected_and_migrated()
        self._refuse_outdated()
        self._dialect.worker_began(worker.id)
        row = msgspec.structs.asdict(worker)
        row["queues"] = None if worker.queues is None else msgspec.json.encode(worker.queues).decode()
        with self._writing() as connection:
            moment = self._moment(connection, now)
            connection.execute(insert(self._tables.workers), row | {"beat_at": moment, "started_at": moment})

    @_repeated
    def beat(self, workers: Collection[str], *, now: datetime | None = None) -> frozenset[str]:
        """Raise the beat of workers by one, all by one statement; return those that are known."""
        table = self._tables.workers
        mine = table.c.id.in_(workers)
        try:
            return self._beat(table, mine, workers, now)
        except Busy:
            # Where one writer keeps out all others, nobody can have taken a worker for dead whose row is there.
            with self._reading() as connection:
                return frozenset(connection.scalars(select(table.c.id).where(mine)))

    def _beat(
        self, table: Table, mine: ColumnElement[bool], workers: Collection[str], now: datetime | None
    ) -> frozenset[str]:
        with self._named_errors(), self._dialect.beating(self._connected_and_migrated()) as connection:
            moment = self._moment(connection, now)
            raised = update(table).where(mine).values(beat=table.c.beat + 1, beat_at=moment)
            if connection.execute(raised).rowcount == len(set(workers)):
                return frozenset(workers)
            return frozenset(connection.scalars(select(table.c.id).where(mine)))

    @_sifted
    @_repeated
    def unregister(self, worker: str, *, now: datetime | None = None) -> Sequence[JobRecord]:
        """Forget a worker that ends in good order."""
        self._slots.pop(worker, None)
        workers = self._tables.workers
        with self._writing() as connection:
            moment = self._moment(connection, now)
            known = connection.execute(delete(workers).where(workers.c.id == worker)).rowcount
            # Without its row it was declared dead: its jobs are for the rescuer.
            released = self._release(connection, worker, (), moment) if known else ()
        self._dialect.worker_ended(worker)
        self._wake()
        return released

    def page(self, worker: str, *, slots: int) -> Page | None:
        """Return the worker's page; on SQLite it lies in the file that proves its life."""
        return self._dialect.page(worker, slots=slots)

    def descriptors(self, worker: str) -> Collection[int]:
        """Return the file that this process keeps locked for the worker."""
        return self._dialect.descriptors(worker)

    @_sifted
    def ready_queues(self, *, alone: bool = False) -> Collection[str]:
        """Return the queues that have ready jobs."""
        with self._reading() as connection:
            return self._named(connection, None, alone)

    # --- the way of a job -------------------------------------------------------------------------------------------

    def claim(
        self,
        worker: str,
        *,
        queues: Sequence[str] | None = None,
        limit: int,
        alone: bool = False,
        now: datetime | None = None,
    ) -> Exchange:
        """Take ready jobs for ``worker``, most urgent first."""
        return self.exchange(worker, (), queues=queues, limit=limit, alone=alone, now=now)

    def transaction(
        self, record: JobRecord | None, *, connection: object | None = None, asynchronous: bool = False
    ) -> Transaction:
        """Return the transaction for one run of a job, not yet opened."""
        if asynchronous and self._async_url is None and connection is None:
            raise ConfigurationError(
                f"{self.describe()} is reached by a synchronous driver only",
                why="a coroutine that is transactional works on a connection of asyncio",
                mend="SQLAlchemyAdapter(create_async_engine(...)), or write def perform",
            )
        if connection is not None:
            prepare = self._dialect.begin_for_caller
            return AsyncJoined(connection, prepare) if asynchronous else Joined(borrowed(connection), prepare)
        means = Means(
            engine=self._engine_of_async_jobs if asynchronous else self._engine_of_jobs,
            turn=self._dialect.turn,
            is_alone=self._dialect.one_writer,
            limit=self._dialect.limit,
            settle=self._settle_within,
            named=self._named_errors,
            place=self.describe(),
        )
        work = Work(means, record)
        return AsyncWork(work, self._async_engine_of_jobs) if asynchronous else work

    def _settle_within(self, connection: Connection, record: JobRecord, outcome: Outcome) -> bool:
        """Settle a job in the transaction that it works in."""
        moment = self._moment(connection, None)
        return bool(self._settle(connection, record.locked_by or "", [Settlement(record, outcome)], moment))

    def _engine_of_jobs(self) -> Engine:
        self._connected_and_migrated()
        with self._opening:
            if self._jobs_engine is None:
                self._jobs_engine = self._dialect.jobs_engine()
            return self._jobs_engine

    def _engine_of_async_jobs(self) -> Engine:
        return self._async_engine_of_jobs().sync_engine

    def _async_engine_of_jobs(self) -> "AsyncEngine":
        with self._opening:
            if self._jobs_async_engine is None:
                self._jobs_async_engine = self._dialect.jobs_async_engine(cast("URL", self._async_url))
            return self._jobs_async_engine

    @_repeated
    def mark(self, worker: str, record: JobRecord, *, now: datetime | None = None) -> bool:
        """Note that the one run of a job begins: by one statement, which is the fence as well."""
        jobs = self._tables.jobs
        with self._writing() as connection:
            begins = update(jobs).where(
                jobs.c.id == record.id,
                jobs.c.lock_token == record.lock_token,
                jobs.c.state == JobState.RUNNING.value,
                jobs.c.locked_by == worker,
                jobs.c.started_at.is_(None),
            )
            moment = self._moment(connection, now)
            return connection.execute(begins.values(started_at=moment)).rowcount == 1

    @_sifted
    @_repeated
    def settle(self, worker: str, settlements: Sequence[Settlement], *, now: datetime | None = None) -> frozenset[int]:
        """Write the outcomes of jobs that run under ``worker``."""
        with self._writing() as connection:
            moment = self._moment(connection, now)
            return self._settle(connection, worker, settlements, moment)

    @_sifted
    @_repeated
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
        """Settle and claim in one transaction."""
        if not settlements and not self._dialect.exchanges:
            idle = self._nothing_to_claim(worker, queues, limit, alone)
            if idle is not None:
                return idle
        with self._writing() as connection:
            if self._dialect.exchanges:
                return self._exchange(connection, worker, settlements, queues, limit, alone, now)
            moment = self._moment(connection, now)
            written = self._settle(connection, worker, settlements, moment)
            alive = self._guard(connection, worker, lock=True)
            records = self._claim(connection, worker, queues, limit, alone, moment) if alive else ()
        return Exchange(settled=written, claimed=records, alive=alive)

    def _exchange(
        self,
        connection: Connection,
        worker: str,
        settlements: Sequence[Settlement],
        queues: Sequence[str] | None,
        limit: int,
        alone: bool,  # noqa: FBT001
        now: datetime | None,
    ) -> Exchange:
        """Settle by the dialect's own statement what succeeded at once, and by the usual ones what did not."""
        plain = [settlement for settlement in settlements if _is_plain(settlement)]
        others = [settlement for settlement in settlements if not _is_plain(settlement)]
        written = self._settle(connection, worker, others, self._moment(connection, now)) if others else frozenset()
        swap = Swap(
            wanted=self._wanted(connection, queues, limit, alone),
            workers=self._tables.workers,
            worker=worker,
            gone=[settlement.record.claim for settlement in plain],
            now=now,
        )
        swapped = self._dialect.exchange(connection, swap)
        records = sorted((record_of(row) for row in swapped.claimed), key=_urgency)
        return Exchange(settled=written.union(swapped.deleted), claimed=records, alive=swapped.alive)

    def _nothing_to_claim(
        self,
        worker: str,
        queues: Sequence[str] | None,
        limit: int,
        alone: bool,  # noqa: FBT001
    ) -> Exchange | None:
        """Look before taking the write lock: an idle worker only reads."""
        with self._reading() as connection:
            alive = self._guard(connection, worker)
            wanted = self._wanted(connection, queues, limit, alone) if alive else None
            if wanted is not None and wanted.limit and self._dialect.is_ready(connection, wanted):
                return None
        return Exchange(settled=frozenset(), claimed=(), alive=alive)

    def _settle(
        self, connection: Connection, worker: str, settlements: Sequence[Settlement], now: datetime
    ) -> frozenset[int]:
        passing = self._held(connection, worker, settlements)
        gone, left, history = [], [], []
        for settlement in passing:
            record = settlement.record
            after = lifecycle.settled(record, settlement.outcome, now=now)
            if after is not None:
                left.append(after)
                history.append(lifecycle.attempted(record, settlement.outcome, now=now))
            else:
                gone.append(record)
        self._remove(connection, gone)
        self._write(connection, left, history)
        return frozenset(settlement.record.id for settlement in passing)

    def _held(self, connection: Connection, worker: str, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """The fence: keep what still runs under this worker by this very claim, and hold it to the end."""
        jobs = self._tables.jobs
        claims: set[Claim] = set()
        if settlements:
            # Found by primary key, whatever the statistics say; the fence is a filter.
            held = select(jobs.c.id, jobs.c.lock_token).where(
                self._among([settlement.record.id for settlement in settlements]),
                jobs.c.state == JobState.RUNNING.value,
                jobs.c.locked_by == worker,
            )
            claims.update((row.id, row.lock_token) for row in connection.execute(held.with_for_update()).all())
        passing: dict[int, Settlement] = {}
        for settlement in settlements:
            if settlement.record.claim in claims:
                passing.setdefault(settlement.record.id, settlement)
        return list(passing.values())

    def _guard(self, connection: Connection, worker: str, *, lock: bool = False) -> bool:
        """Say whether the worker's row is there, and keep it there: a claim for the dead must take nothing."""
        workers = self._tables.workers
        row = select(workers.c.id).where(workers.c.id == worker)
        if lock:
            row = row.with_for_update(read=True, key_share=True)
        return connection.scalar(row) is not None

    def _claim(
        self,
        connection: Connection,
        worker: str,
        queues: Sequence[str] | None,
        limit: int,
        alone: bool,  # noqa: FBT001
        now: datetime,
    ) -> Sequence[JobRecord]:
        wanted = self._wanted(connection, queues, limit, alone)
        if not wanted.limit:
            return ()
        jobs = self._tables.jobs
        rows = self._dialect.ready_rows(connection, wanted)
        records = [lifecycle.claimed(record_of(row), worker=worker, now=now) for row in rows]
        if records:
            taken = update(jobs).where(self._among([record.id for record in records]))
            connection.execute(
                taken.values(
                    state=JobState.RUNNING.value,
                    locked_by=worker,
                    locked_at=now,
                    lock_token=jobs.c.lock_token + 1,
                    attempts=jobs.c.attempts + 1,
                )
            )
        return sorted(records, key=_urgency)

    def _wanted(
        self,
        connection: Connection,
        queues: Sequence[str] | None,
        limit: int,
        alone: bool,  # noqa: FBT001
    ) -> Wanted:
        """Return what a claim is to take, its queues by name unless one index holds the jobs of all."""
        named = None
        if queues is not None or not self._dialect.spans_queues(alone=alone):
            named = self._named(connection, queues, alone)
        some = named is None or named
        return Wanted(jobs=self._tables.jobs, queues=named, limit=max(limit, 0) if some else 0, alone=alone)

    def _named(
        self,
        connection: Connection,
        queues: Sequence[str] | None,
        alone: bool,  # noqa: FBT001
    ) -> Sequence[str]:
        """Return the queues by name; all of them are those that have ready jobs, one look into the index for each."""
        if queues is not None:
            return tuple(dict.fromkeys(queues))
        jobs = self._tables.jobs
        return tuple(self._dialect.distinct(connection, jobs.c.queue, ready(jobs, alone=alone)))

    @_sifted
    @_repeated
    def promote(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        """Make due jobs ready, urgent first."""
        jobs = self._tables.jobs
        with self._reading() as connection:
            heads = self._dialect.heads(connection, jobs)
            present = self._moment(connection, now) if heads else now
        due_heads = [head for head in heads if present is not None and head.run_at <= present]
        if not due_heads:
            return 0
        with self._writing() as connection:
            moment = self._moment(connection, now)
            due = self._dialect.due(connection, jobs, due_heads, limit, moment)
            if due:
                connection.execute(update(jobs).where(self._among(due)).values(state=JobState.READY.value))
            if moment - min(head.run_at for head in due_heads) > LATE:
                self._dialect.came_late()
        if due:
            self._wake()
        return len(due)

    @_sifted
    @_repeated
    def release(self, worker: str, *, held: Collection[Claim] = (), now: datetime | None = None) -> Sequence[JobRecord]:
        """Give back what runs under ``worker`` and is not among what it holds."""
        jobs = self._tables.jobs
        with self._reading() as connection:
            mine = select(jobs.c.id, jobs.c.lock_token).where(_running_under(jobs, worker))
            if all((row.id, row.lock_token) in held for row in connection.execute(mine)):
                return ()
        with self._writing() as connection:
            moment = self._moment(connection, now)
            released = self._release(connection, worker, held, moment)
        self._wake()
        return released

    def _release(
        self, connection: Connection, worker: str, held: Collection[Claim], now: datetime
    ) -> Sequence[JobRecord]:
        running = self._locked(connection, _running_under(self._tables.jobs, worker))
        lost = [record for record in running if record.claim not in held]
        left = [lifecycle.settled(record, lifecycle.Released(), now=now) for record in lost]
        # A marked one is failed, and tells why.
        history = [lifecycle.attempted(record, lifecycle.Released(), now=now) for record in lost]
        return self._write(connection, [record for record in left if record is not None], history)

    # --- the dead ---------------------------------------------------------------------------------------------------

    def is_dead(self, worker: WorkerRecord) -> bool | None:
        """Ask the kernel, where this host can."""
        return self._dialect.is_dead(worker.id)

    def notes(self, worker: WorkerRecord) -> Mapping[Claim, Trace] | None:
        """Read the dead worker's page, where this host can."""
        return self._dialect.notes(worker.id)

    def pardon(self, worker: str) -> None:
        """Note it in the worker's page, where this host can."""
        self._dialect.pardon(worker)

    def first_deadline(self, worker: str) -> float | None:
        """Return when the first of the jobs that a living worker runs must have ended, by its page."""
        return self._dialect.first_deadline(worker)

    def condemn(self, worker: str, *, at: float) -> None:
        """Note in a worker's page, where this host can, that it is about to be ended for what is overdue."""
        self._dialect.condemn(worker, at=at)

    @_sifted
    @_repeated
    def rescue(
        self,
        worker: str,
        *,
        beat: int | None = None,
        notes: Mapping[Claim, Trace] | None = None,
        now: datetime | None = None,
    ) -> Sequence[JobRecord] | None:
        """Take back the jobs of a dead worker: first its row goes, then its jobs."""
        workers = self._tables.workers
        proven = [workers.c.id == worker]
        if beat is not None:
            proven.append(workers.c.beat == beat)
        with self._writing() as connection:
            moment = self._moment(connection, now)
            # A row in use belongs to a claim under way, of a worker that may be frozen: another look will come.
            free = select(workers.c.id).where(*proven).with_for_update(skip_locked=True)
            if connection.scalar(free) is None:
                return None
            connection.execute(delete(workers).where(*proven))
            # A statement of its own: it sees a claim that was still waiting while the row went.
            running = self._locked(connection, _running_under(self._tables.jobs, worker))
            taken = self._take_back(connection, running, notes, moment)
        self._dialect.worker_ended(worker)
        self._wake()
        return taken

    @_sifted
    @_repeated
    def sweep(self, *, now: datetime | None = None) -> Sequence[JobRecord]:
        """Take back jobs that run under an id without a worker row."""
        jobs, workers = self._tables.jobs, self._tables.workers
        orphaned = (
            jobs.c.state == literal_column("'running'"),
            ~select(workers.c.id).where(workers.c.id == jobs.c.locked_by).exists(),
        )
        with self._reading() as connection:
            if connection.scalar(select(jobs.c.id).where(*orphaned).limit(1)) is None:
                return ()
        with self._writing() as connection:
            moment = self._moment(connection, now)
            running = self._locked(connection, *orphaned)
            # Looked at again: a row that was waited for may by now run under a worker that the first look did not see.
            living = set(connection.scalars(select(workers.c.id)))
            lost = [record for record in running if record.locked_by not in living]
            taken = self._take_back(connection, lost, None, moment)
        self._wake()
        return taken

    def _take_back(
        self,
        connection: Connection,
        running: Sequence[JobRecord],
        notes: Mapping[Claim, Trace] | None,
        now: datetime,
    ) -> Sequence[JobRecord]:
        traces = {record.id: _trace(record, notes) for record in running}
        left = [lifecycle.rescued(record, traces[record.id], now=now) for record in running]
        history = [lifecycle.lost(record, traces[record.id], now=now) for record in running]
        return self._write(connection, left, history)

    # --- operators --------------------------------------------------------------------------------------------------

    @_sifted
    def get(self, id: int) -> JobRecord | None:
        """Return the job, or None."""
        with self._reading() as connection:
            row = connection.execute(select(self._tables.jobs).where(self._tables.jobs.c.id == id)).first()
        return None if row is None else record_of(row)

    @_sifted
    def jobs(self, filter: JobFilter | None = None, *, after: int = 0, limit: int = 100) -> Sequence[JobRecord]:
        """Return jobs by id."""
        jobs = self._tables.jobs
        page = select(jobs).where(jobs.c.id > after, *_matching(jobs, filter)).order_by(jobs.c.id).limit(limit)
        with self._reading() as connection:
            # All are fetched first: an open cursor would live on in the error that a row may raise.
            return [record_of(row) for row in connection.execute(page).all()]

    @_sifted
    def attempts(self, id: int) -> Sequence[JobAttempt]:
        """Return the failed tries of a job, oldest first."""
        attempts = self._tables.attempts
        fields = [attempts.c[field] for field in JobAttempt.__struct_fields__]
        history = select(*fields).where(attempts.c.job_id == id).order_by(attempts.c.id)
        with self._reading() as connection:
            return [attempt_of(row) for row in connection.execute(history).all()]

    @_sifted
    def counts(self) -> Mapping[tuple[str, JobState], int]:
        """Return how many jobs there are per queue and state."""
        jobs = self._tables.jobs
        grouped = select(jobs.c.queue, jobs.c.state, func.count()).group_by(jobs.c.queue, jobs.c.state)
        with self._reading() as connection:
            return {(queue, JobState(state)): number for queue, state, number in connection.execute(grouped)}

    @_sifted
    def next_run_at(self) -> datetime | None:
        """Return the earliest ``run_at`` of a scheduled job: one look into the index per priority."""
        with self._reading() as connection:
            heads = self._dialect.heads(connection, self._tables.jobs)
        return min((head.run_at for head in heads), default=None)

    @_sifted
    def workers(self) -> Sequence[WorkerRecord]:
        """Return the workers that are known, oldest first."""
        workers = self._tables.workers
        with self._reading() as connection:
            rows = connection.execute(select(workers).order_by(workers.c.started_at, workers.c.id)).all()
        return [worker_of(row) for row in rows]

    def retry(self, seen: Sequence[JobRecord], *, now: datetime | None = None) -> frozenset[int]:
        """Make jobs ready now, with at least one more try."""
        return self._change(seen, lifecycle.retried, now)

    def cancel(self, seen: Sequence[JobRecord], *, now: datetime | None = None) -> frozenset[int]:
        """Cancel jobs that wait."""
        return self._change(seen, lifecycle.cancelled, now)

    def edit(self, seen: Sequence[JobRecord], edit: Edit, *, now: datetime | None = None) -> frozenset[int]:
        """Change jobs that wait."""
        return self._change(seen, lambda record, *, now: lifecycle.edited(record, edit, now=now), now)

    @_sifted
    @_repeated
    def delete(self, seen: Sequence[JobRecord]) -> frozenset[int]:
        """Delete jobs that do not run, with their history."""
        with self._writing() as connection:
            idle = [record for record in self._unchanged(connection, seen) if record.state is not JobState.RUNNING]
            self._remove(connection, idle, with_history=True)
        return frozenset(record.id for record in idle)

    @_repeated
    def clear(self, filter: JobFilter | None = None, *, running: bool = False) -> int:
        """Delete all jobs that match, with their history."""
        jobs, attempts = self._tables.jobs, self._tables.attempts
        chosen = [*_matching(jobs, filter)]
        if not running:
            chosen.append(jobs.c.state != JobState.RUNNING.value)
        with self._named_errors(), self._dialect.patient(self._connected_and_migrated()) as connection:
            connection.execute(delete(attempts).where(attempts.c.job_id.in_(select(jobs.c.id).where(*chosen))))
            return connection.execute(delete(jobs).where(*chosen)).rowcount

    @_sifted
    @_repeated
    def _change(
        self, seen: Sequence[JobRecord], transition: Callable[..., JobRecord | None], now: datetime | None
    ) -> frozenset[int]:
        with self._writing() as connection:
            moment = self._moment(connection, now)
            after = (transition(record, now=moment) for record in self._unchanged(connection, seen))
            left = self._write(connection, [record for record in after if record is not None])
        self._wake()
        return frozenset(record.id for record in left)

    def _unchanged(self, connection: Connection, seen: Sequence[JobRecord]) -> Sequence[JobRecord]:
        """The operators' fence: keep the jobs that still stand as they were seen."""
        standing = {(record.id, record.state, record.lock_token) for record in seen}
        return [
            record
            for record in self._locked(connection, self._among([record.id for record in seen]))
            if (record.id, record.state, record.lock_token) in standing
        ]

    # --- forged rows ------------------------------------------------------------------------------------------------

    def set_unreadable_aside(self) -> int:
        """Set all rows aside that no release of Sapwood has written; return how many there were.

        They are looked for among all rows, and after a look in vain for a minute no more.
        """
        if time.monotonic() < self._next_sieving or self.migration_status().is_too_new:
            return 0
        sieve = Sieve(self._tables, self._dialect)
        with self._reading() as connection:
            found = sieve.find(connection)
        count = sum(map(len, found.values()))
        if not count:
            self._next_sieving = time.monotonic() + _SIEVING_PAUSE
            return 0
        with self._writing() as connection:
            sieve.remove(connection, found, self._dialect.clock(connection))
        ids = ", ".join(f"#{key}" for key in found[self._tables.jobs][:_SHOWN]) or "none"
        _log.warning("%s: %d rows that cannot be read are set aside, jobs: %s", self.describe(), count, ids)
        return count

    # --- waking up --------------------------------------------------------------------------------------------------

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after verbs of this adapter, and after commits of others where the database tells."""
        self._connected_and_migrated()
        key = object()
        self._wakes = {**self._wakes, key: wake}
        end = self._dialect.listen(wake)

        def stop() -> None:
            self._wakes = {other: called for other, called in self._wakes.items() if other is not key}
            end()

        return stop

    def tell(self) -> None:
        """Wake who listens."""
        self._wake_joined()

    def _wake(self) -> None:
        for wake in self._wakes.values():
            wake()
        self._dialect.tell()

    def _wake_joined(self) -> None:
        # The caller's commit has succeeded, and must not seem to have failed: polling finds the jobs in any case.
        with suppress(Exception):
            if self._dialect.tells:
                with self._opening:
                    self._connected()
            self._wake()

    # --- rows -------------------------------------------------------------------------------------------------------

    def _locked(self, connection: Connection, *conditions: ColumnElement[bool]) -> Sequence[JobRecord]:
        rows = connection.execute(select(self._tables.jobs).where(*conditions).with_for_update()).all()
        return [record_of(row) for row in rows]

    def _write(
        self, connection: Connection, left: Sequence[JobRecord], history: Iterable[JobAttempt | None] = ()
    ) -> Sequence[JobRecord]:
        jobs = self._tables.jobs
        if left:
            values: dict[str, Any] = {
                field: bindparam(field) for field in JobRecord.__struct_fields__ if field not in _FIXED
            }
            self._dialect.came_late()
            changed = update(jobs).where(jobs.c.id == bindparam("this")).values(values)
            connection.execute(changed, [_row(record, without=_FIXED) | {"this": record.id} for record in left])
        lines = [msgspec.structs.asdict(attempt) for attempt in history if attempt is not None]
        if lines:
            connection.execute(insert(self._tables.attempts), lines)
        return left

    def _remove(self, connection: Connection, gone: Sequence[JobRecord], *, with_history: bool = False) -> None:
        jobs, attempts = self._tables.jobs, self._tables.attempts
        if gone:
            connection.execute(delete(jobs).where(self._among([record.id for record in gone])))
        # Most jobs succeed at their first try and have no history: they are spared the look.
        told = [record.id for record in gone if with_history or record.attempts > 1 or record.last_error is not None]
        if told:
            connection.execute(delete(attempts).where(self._dialect.among(attempts.c.job_id, told)))

    def _among(self, ids: Sequence[int]) -> ColumnElement[bool]:
        return self._dialect.among(self._tables.jobs.c.id, ids)

    # --- connections ------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._named_errors(), self._dialect.writing(self._connected_and_migrated()) as connection:
            yield connection

    def _moment(self, connection: Connection, now: datetime | None) -> datetime:
        """Return the present that a verb was given, or the store's own."""
        return now or self._dialect.clock(connection)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._named_errors(), self._dialect.reading(self._connected_and_migrated()) as connection:
            yield connection

    def _connected_and_migrated(self) -> Engine:
        """Return the engine; the first verb of a process opens it, and makes the tables where that is its own to do."""
        if self._engine is not None and self._migrated and self._pid == os.getpid():
            return self._engine
        if self._dialect.migrates_itself:
            self.migrate()
        else:
            self._recognise()
        with self._opening:
            self._migrated = True
            return self._connected()

    def _recognise(self) -> None:
        """Learn which installation the tables are, and whether this release may use them; once per opening."""
        with self._opening, self._named_errors(), self._dialect.reading(self._connected()) as connection:
            greeting = self._dialect.greet(connection, self._tables.meta)
        migrations.refuse_too_new(greeting.oldest_reader)
        self._installation.opened(greeting.installation)

    def _refuse_outdated(self) -> None:
        """Let no worker begin on tables that its release cannot write; the application may enqueue all the same."""
        pending = () if self._dialect.migrates_itself else self.pending_migrations()
        if pending:
            raise self._dialect.schema_outdated(f"missing: {', '.join(pending)}")

    def _provide(self) -> None:
        """Have a connection for each thread of this process's workers, and tell where there cannot be as many.

        No verb holds two, so that a thread which waits for one waits for somebody who will give it back.
        """
        needed = sum([*self._slots.values()]) + _OWN_CONNECTIONS
        if needed <= self._provided:
            return
        grows = needed > self._pooling().most
        self._provided = needed
        if grows and self._pool_size is None:
            # The next verb opens it again, larger.
            self.close()
        if self._pool_size is not None and needed > self._pool_size:
            _log.warning(
                "pool_size=%d is less than the %d connections that workers of %s may use at once"
                " – their jobs wait for one another when they enqueue – make it %d, or leave it out",
                *(self._pool_size, needed, self.describe(), needed),
            )
        with self._reading() as connection:
            room = self._dialect.room(connection)
            pool = cast("QueuePool", connection.engine.pool)
            more = 0 if room is None else min(needed, self._pooling().most) - pool.checkedin() - pool.checkedout()
        if room is not None and more > room:
            _log.warning(
                "%s has room for %d more connections, and workers of this process may need %d"
                " – each job takes one while it enqueues – raise max_connections, lower concurrency, or set pool_size",
                *(self.describe(), room, more),
            )

    def _pooling(self) -> Pooling:
        if self._pool_size is not None:
            return Pooling(self._pool_size, self._pool_size)
        return Pooling(max(_KEPT_CONNECTIONS, self._provided), max(_MOST_CONNECTIONS, self._provided))

    def _connected(self) -> Engine:
        """Return the engine of this process: connections do not survive a fork."""
        if self._engine is not None and self._pid != os.getpid():
            self._engine.dispose(close=False)
            self._engine = None
        if self._engine is None:
            self._pid = os.getpid()
            self._engine = self._dialect.connect(self._pooling())
            self._dialect.watch(self._engine)
            # An adapter that is dropped without close() lets go of its connections all the same.
            weakref.finalize(self, _let_go, self._dialect, self._engine, self._pid)
        return self._engine

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise StoreUnavailable(
                f"{self.describe()}: all {self._pooling().most} connections of this process are in use",
                why="none was given back in 30 seconds",
                mend="see what keeps the server busy, or raise pool_size=",
            ) from error
        except DBAPIError as error:
            if self._dialect.is_conflict(error):
                raise _Conflict(
                    f"{self.describe()}: another transaction was in the way",
                    why=str(error.orig).partition("\n")[0],
                    mend="end the transaction that keeps its locks; workers try again by themselves",
                ) from error
            named = self._dialect.translated(error)
            if named is None:
                raise
            raise named from error


def _let_go(dialect: Dialect, engine: Engine, pid: int) -> None:
    # A forked child has its parent's connections in memory: to close them would end them for the parent.
    if os.getpid() == pid:
        dialect.close()
        engine.dispose()


def _url(database: "str | URL | Engine | AsyncEngine") -> URL:
    engine = getattr(database, "sync_engine", database)
    if isinstance(engine, Engine):
        url = engine.url
        if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
            raise UnsupportedStore(
                "an engine for a SQLite database in memory was passed in",
                why="its one connection is the application's own and cannot be shared with workers",
                mend="use a file, MemoryAdapter(), or SQLAlchemyAdapter('sqlite:///:memory:')",
            )
        return url
    with suppress(ArgumentError, ValueError):
        url = make_url(cast("str | URL", database))
        # Behind an @ that was not encoded, the rest of a password would be taken for the host, which is shown.
        if url.get_backend_name() and "@" not in (url.host or ""):
            return url
    # Nothing hangs on it: what SQLAlchemy says may quote the URL, and a port that is none is part of a password.
    raise ConfigurationError(
        "the database URL cannot be read",
        why="it is not of the form dialect://user:password@host/name",
        mend="for a file beside you: sqlite:///jobs.db – a password is percent-encoded",
    )


def _dialect(url: URL, durability: Durability) -> Dialect:
    """Choose the dialect; its driver is imported only now."""
    backend = url.get_backend_name()
    if backend == "sqlite":
        return SQLiteDialect(url, durability=durability)
    if backend not in _EXTRAS:
        raise UnsupportedStore(
            f"{backend} is not supported",
            why="there are dialects for SQLite, PostgreSQL and MySQL or MariaDB",
            mend="use sqlite:///jobs.db",
        )
    driver, extra = _EXTRAS[backend]
    try:
        importlib.import_module(driver)
    except ImportError as error:
        raise ConfigurationError(
            f"the driver for {backend} is not installed",
            why=f"{driver} cannot be imported: {error}",
            mend=f'pip install "sapwood[{extra}]"',
        ) from error
    if backend == "postgresql":
        from sapwood.adapters.dialects.postgresql import PostgreSQLDialect  # noqa: PLC0415 - it imports its driver

        return PostgreSQLDialect(url)
    from sapwood.adapters.dialects.mysql import MySQLDialect  # noqa: PLC0415 - who has none of it need not load it

    return MySQLDialect(url)


def _running_under(jobs: Table, worker: str) -> ColumnElement[bool]:
    return (jobs.c.state == literal_column("'running'")) & (jobs.c.locked_by == worker)


def _matching(jobs: Table, filter: JobFilter | None) -> Iterator[ColumnElement[bool]]:
    if filter is None:
        return
    if filter.states is not None:
        yield jobs.c.state.in_([state.value for state in filter.states])
    if filter.queues is not None:
        yield jobs.c.queue.in_(filter.queues)
    if filter.jobs is not None:
        yield jobs.c.job.in_(filter.jobs)


def _is_plain(settlement: Settlement) -> bool:
    """Say whether a settlement only deletes a row: no state to compute, no history to write or to remove."""
    record, outcome = settlement.record, settlement.outcome
    return isinstance(outcome, Succeeded) and not outcome.keep and record.attempts == 1 and record.last_error is None


def _urgency(record: JobRecord) -> tuple[int, datetime, int]:
    return record.priority, record.run_at, record.id


def _trace(record: JobRecord, notes: Mapping[Claim, Trace] | None) -> Trace:
    if notes is None:
        return Trace.UNKNOWN
    return notes.get(record.claim, Trace.NOT_STARTED)


def _row(record: JobRecord, *, without: Collection[str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        field: getattr(record, field) for field in JobRecord.__struct_fields__ if field not in without
    }
    values["state"] = record.state.value
    values["alone"] = int(record.alone)
    return values
