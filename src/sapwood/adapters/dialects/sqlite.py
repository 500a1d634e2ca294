"""SQLite: one writer at a time, each in turn, on a local file whose locks the kernel keeps."""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    NullPool,
    Row,
    Select,
    Table,
    case,
    create_engine,
    event,
    func,
    insert,
    select,
    union_all,
)
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import StaticPool

from sapwood.adapters.base import WITHIN, Transaction
from sapwood.adapters.dialects.base import PLAIN, Busy, Dialect, Greeting, Head, Pooling, Wanted, ready
from sapwood.adapters.dialects.troubles import (
    DAMAGED,
    FULL,
    LOCKED,
    OVERLOADED,
    READ_ONLY_FILE,
    UNOPENED,
    Trouble,
    named,
)
from sapwood.adapters.locks import Ticket, WorkerLocks
from sapwood.errors import (
    ConfigurationError,
    ForeignConnection,
    StoreError,
    TransactionMisused,
    UnsupportedStore,
)
from sapwood.lifecycle import Trace
from sapwood.page import Claim, Page

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_log = logging.getLogger("sapwood")

Durability = Literal["full", "normal"]

_SYNCHRONOUS: Mapping[Durability, str] = {"full": "FULL", "normal": "NORMAL"}
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "afpfs", "ncpfs", "webdav"})
_DOUBTFUL = frozenset({"9p", "virtiofs", "vboxsf", "fuse", "fuseblk", "drvfs"})
_BUSY_SECONDS = 30
_WAIT_SECONDS = 10
_SLICE = 0.5
"""How long a thread waits for another of its process. Ours take milliseconds; a job may take what it likes."""

_BEAT_SECONDS = 2
_JOB_SECONDS = 60
"""How long a job waits until it can open its transaction."""

_ARGUMENTS: Mapping[str, Any] = {"check_same_thread": False, "isolation_level": None, "timeout": _BUSY_SECONDS}
_MOST_PARTS = 400
"""SQLite refuses a compound of more than 500."""

_LOOK_SECONDS = 0.02
"""How often a listener asks whether somebody has committed. One look costs a few microseconds."""

_TROUBLES: Mapping[int, Trouble] = MappingProxyType(
    {
        sqlite3.SQLITE_FULL: FULL,
        sqlite3.SQLITE_READONLY: READ_ONLY_FILE,
        sqlite3.SQLITE_IOERR: DAMAGED,
        # The index of the write-ahead log could not be made larger.
        sqlite3.SQLITE_IOERR_SHMSIZE: FULL,
        sqlite3.SQLITE_CANTOPEN: UNOPENED,
        sqlite3.SQLITE_BUSY: LOCKED,
        sqlite3.SQLITE_LOCKED: LOCKED,
        sqlite3.SQLITE_NOMEM: OVERLOADED,
    }
)
"""By SQLite's number, the exact one or the class that it belongs to."""

_CLASS = 0xFF
_UNUSABLE = MappingProxyType(
    {sqlite3.SQLITE_NOTADB: "choose another file", sqlite3.SQLITE_CORRUPT: "restore the file from a backup"}
)


class SQLiteDialect(Dialect):
    """A SQLite file, or a database in the memory of this process.

    Args:
        url: where it is. A relative path is made absolute now, so that a later ``chdir`` cannot move it.
        durability: ``"full"`` survives a power cut; with ``"normal"`` one may undo the last commits, no more.
    """

    names = frozenset({"sqlite"})
    migrates_itself = True
    one_writer = True

    def __init__(self, url: URL, *, durability: Durability = "full") -> None:
        if durability not in _SYNCHRONOUS:
            raise ConfigurationError(f"durability is {durability!r}", mend='choose "full" or "normal"')
        self._path = _absolute(url.database)
        self._url = url.set(drivername="sqlite+pysqlite", database=str(self._path) if self._path else ":memory:")
        self._synchronous = _SYNCHRONOUS[durability]
        self._turn = _Turn()
        self._holder: Transaction | None = None
        """The transaction of a job that has the turn."""

        self._ticket: Ticket | None = None
        folder = self._path.with_name(f"{self._path.name}.workers") if self._path else None
        self._folder = folder
        self._locks = WorkerLocks(folder) if folder else None
        self._memory: Engine | None = None

    @property
    def url(self) -> URL:
        """Where the file is."""
        return self._url

    @property
    def is_volatile(self) -> bool:
        """True in memory."""
        return self._path is None

    @property
    def proves_death(self) -> bool:
        """True for a file, whose workers' locks the kernel keeps."""
        return self._path is not None

    def describe(self) -> str:
        """Return the file, or that there is none."""
        return f"sqlite:///{self._path}" if self._path else "sqlite in memory"

    def connect(self, pooling: Pooling) -> Engine:
        """Return an engine whose transactions begin as ours must."""
        del pooling
        # After a fork, locks and tickets of the parent are of no use here.
        self._turn, self._holder = _Turn(), None
        arguments = _ARGUMENTS
        if self._path and self._folder:
            _refuse_network(self._path)
            _create(self._path)
            with named(self.describe()):
                self._ticket = Ticket(self._folder)
            engine = create_engine(self._url, connect_args=arguments, hide_parameters=True)
        else:
            engine = create_engine(self._url, connect_args=arguments, poolclass=StaticPool, hide_parameters=True)
            self._memory = engine
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "begin", _begin)
        return engine

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Let one writer in at a time, in turn, and take the write lock at once.

        A transaction that begins by reading and then writes fails without waiting, whatever the time-out says
        (SQLITE_BUSY_SNAPSHOT); BEGIN IMMEDIATE waits.
        """
        with self._in_turn(_WAIT_SECONDS), engine.connect() as connection:
            connection.execution_options(sapwood_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def beating(self, engine: Engine) -> Iterator[Connection]:
        """Wait for some seconds only: while a job keeps the lock, nobody else can write a death either."""
        with self._in_turn(_BEAT_SECONDS), engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute(f"PRAGMA busy_timeout = {_BEAT_SECONDS * 1000}")
            try:
                connection.execution_options(sapwood_writes=True)
                try:
                    transaction = connection.begin()
                except OperationalError as error:
                    raise self._busy() from error
                with transaction:
                    yield connection
            finally:
                driver.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")

    @contextmanager
    def _in_turn(self, seconds: float) -> Iterator[None]:
        """Wait for this process's turn among its threads, then among processes."""
        if self._holder is not None and any(self._holder is within for within in WITHIN.get()):
            raise TransactionMisused(
                f"{self.describe()}: this would wait for the transaction of the job that asks for it",
                why="SQLite has one writer at a time, and that is this job since it opened self.context.connection",
                mend="do it before that, or in a job of its own; perform_later joins the transaction by itself",
            )
        with self._turn.held(seconds) as is_mine:
            if not is_mine:
                raise self._busy()
            with self._ticket.held(seconds) if self._ticket else nullcontext():
                yield

    def _busy(self) -> Busy:
        return Busy(
            f"{self.describe()}: somebody keeps the write lock",
            why="another transaction is open" if self._holder is None else "a job works in its transaction",
            mend="keep transactions short; workers try again by themselves",
        )

    @contextmanager
    def turn(self, holder: Transaction) -> Iterator[None]:
        """Let one job in at a time."""
        with self._in_turn(_JOB_SECONDS):
            self._holder = holder
            try:
                yield
            finally:
                self._holder = None

    def jobs_engine(self) -> Engine:
        """Return an engine without a pool: what a job sets in its connection must not meet the next one."""
        if self._memory is not None:
            # There is but one connection.
            return self._memory.execution_options(sapwood_writes=True)
        engine = create_engine(self._url, connect_args=_ARGUMENTS, poolclass=NullPool, hide_parameters=True)
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "begin", _begin)
        return engine.execution_options(sapwood_writes=True)

    def jobs_async_engine(self, url: URL) -> "AsyncEngine":
        """Return one by the application's own driver."""
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - needs greenlet

        url = url.set(database=str(self._path)) if self._path else url
        arguments = {"isolation_level": None, "timeout": _BUSY_SECONDS}
        engine = create_async_engine(url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
        event.listen(engine.sync_engine, "connect", self._prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        return engine.execution_options(sapwood_writes=True)

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """Read one snapshot, which no writer disturbs."""
        # In memory there is but one connection, and so one transaction at a time.
        with nullcontext() if self._path else self._in_turn(_WAIT_SECONDS), engine.connect() as connection:
            yield connection

    def clock(self, connection: Connection) -> datetime:
        """Return this machine's time: SQLite has no other."""
        del connection
        return datetime.now(UTC)

    def among(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        """Pass the ids as one JSON text: a list of parameters would be another statement for each length."""
        return column.in_(select(func.json_each(json.dumps(ids)).table_valued("value").c.value))

    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Write the bytes out: what SQLite calls text may be no text."""
        return case((column.is_not(None), func.hex(column)))

    def from_text(self, text: str | None) -> str | None:
        """Read what can be read."""
        return None if text is None else bytes.fromhex(text).decode("utf-8", "replace")

    def is_ready(self, connection: Connection, wanted: Wanted) -> bool:
        """Look for the first."""
        return connection.scalar(self._first(_reads(wanted, self.order), 1)) is not None

    def ready_rows(self, connection: Connection, wanted: Wanted) -> Sequence[Row[Any]]:
        """Read them: the write lock is held already."""
        jobs = wanted.jobs
        ids = self._first(_reads(wanted, self.order), wanted.limit).subquery()
        return connection.execute(select(jobs).where(jobs.c.id.in_(select(ids.c.id)))).all()

    def due(
        self, connection: Connection, jobs: Table, heads: Sequence[Head], limit: int, now: datetime
    ) -> Sequence[int]:
        """Merge one read for each priority: the write lock is held already."""
        first = self._first(self.due_reads(jobs, heads, now), limit)
        return [row.id for row in connection.execute(first)]

    def _first(self, reads: Sequence[Select[Any]], limit: int) -> Select[Any]:
        """Merge reads: each goes on only as far as its rows are among the first."""
        # SQLite merges the parts of a compound whose outer order their indexes provide, a row at a time.
        if len(reads) == 1:
            return reads[0].order_by(*(reads[0].selected_columns[name] for name in self.order)).limit(limit)
        if len(reads) > _MOST_PARTS:
            groups = (reads[start : start + _MOST_PARTS] for start in range(0, len(reads), _MOST_PARTS))
            reads = [self._first(group, limit) for group in groups]
        compound = union_all(*reads)
        ordered = compound.order_by(*(compound.selected_columns[name] for name in self.order)).limit(limit)
        return select(ordered.subquery())

    def insert(self, connection: Connection, jobs: Table, rows: Sequence[Mapping[str, Any]]) -> Sequence[int]:
        """Insert many by one statement. Ids grow in the order of the rows, whatever order they are returned in."""
        if len(rows) == 1 or not connection.dialect.insert_executemany_returning:
            return super().insert(connection, jobs, rows)
        return tuple(sorted(connection.scalars(insert(jobs).returning(jobs.c.id), rows, execution_options=PLAIN)))

    def is_missing_table(self, error: DBAPIError) -> bool:
        """Know it by its text."""
        return "no such table" in str(error.orig)

    def is_missing_column(self, error: DBAPIError) -> bool:
        """Know it by its text."""
        return any(part in str(error.orig) for part in ("no such column", "has no column named"))

    def _greeted(self, connection: Connection, meta: Table) -> Greeting:
        """Compare the files."""
        del meta
        # Not the table-valued function of that name: it would begin to read, and who reads first may fail to write.
        files = {name: file for _, name, file in connection.exec_driver_sql("PRAGMA database_list")}
        theirs = Path(os.fsdecode(files["main"])) if files["main"] else None
        if self._path is None or theirs is None or not theirs.exists() or not self._path.exists():
            same = theirs == self._path and theirs is not None
        else:
            same = theirs.samefile(self._path)
        if not same:
            raise ForeignConnection(
                f"the connection leads to {theirs or 'a database in memory'}",
                why=f"this adapter keeps its jobs in {self._path or 'another one in memory'}",
                mend="hand in a connection to the same file, or leave connection= out",
            )
        return Greeting(self.clock(connection))

    def begin_for_caller(self, connection: Connection) -> None:
        """Begin as the driver would before an insert: it does not before a table is made."""
        driver: Any = connection.connection.driver_connection
        begins_itself = getattr(driver, "autocommit", -1) == -1 and driver.isolation_level is not None
        if begins_itself and not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def translated(self, error: DBAPIError) -> StoreError | None:
        """Name what SQLite reports by its numbers."""
        said = str(error.orig)
        if self.is_missing_column(error):
            return self.schema_outdated(said)
        code = getattr(error.orig, "sqlite_errorcode", 0)
        trouble = _TROUBLES.get(code) or _TROUBLES.get(code & _CLASS)
        if trouble is not None:
            return trouble.error(self.describe(), said)
        if code & _CLASS in _UNUSABLE:
            return UnsupportedStore(f"{self.describe()}: {said}", mend=_UNUSABLE[code & _CLASS])
        return super().translated(error)

    def worker_began(self, worker: str) -> None:
        """Lock the worker's file."""
        if self._locks:
            with named(self.describe()):
                self._locks.take(worker)

    def worker_ended(self, worker: str) -> None:
        """Remove the worker's file."""
        if self._locks:
            self._locks.let_go(worker)

    def page(self, worker: str, *, slots: int) -> Page | None:
        """Return the page in the worker's file."""
        with named(self.describe()):
            return self._locks.page(worker, slots=slots) if self._locks else None

    def descriptors(self, worker: str) -> Collection[int]:
        """Return the worker's file."""
        return (self._locks.descriptor(worker),) if self._locks else ()

    def pardon(self, worker: str) -> None:
        """Note it in the worker's file."""
        if self._locks:
            self._locks.pardon(worker)

    def first_deadline(self, worker: str) -> float | None:
        """Read it in the worker's file."""
        return self._locks.first_deadline(worker) if self._locks else None

    def condemn(self, worker: str, *, at: float) -> None:
        """Note it in the worker's file."""
        if self._locks:
            self._locks.condemn(worker, at=at)

    def is_dead(self, worker: str) -> bool | None:
        """Ask the kernel."""
        return self._locks.is_dead(worker) if self._locks else None

    def notes(self, worker: str) -> Mapping[Claim, Trace] | None:
        """Read the page in the dead worker's file."""
        return self._locks.notes(worker) if self._locks else None

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when another connection, of any process, has committed."""
        if not self._path:
            return lambda: None
        stop = threading.Event()
        thread = threading.Thread(
            target=_watch, args=(str(self._path), wake, stop), name="sapwood-sqlite-watch", daemon=True
        )
        thread.start()

        def end() -> None:
            stop.set()
            thread.join()

        return end

    def close(self) -> None:
        """Close the ticket's files."""
        if self._ticket:
            self._ticket.close()
            self._ticket = None

    def _prepare(self, connection: Any, _: object) -> None:
        cursor = connection.cursor()
        if self._path:
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {self._synchronous}")
        cursor.close()


def _reads(wanted: Wanted, order: Sequence[str]) -> Sequence[Select[Any]]:
    """Return one read for each queue, in the order of the index."""
    jobs = wanted.jobs
    first = select(*(jobs.c[name] for name in order)).where(ready(jobs, alone=wanted.alone))
    return [first.where(jobs.c.queue == queue) for queue in wanted.queues or ("",)]


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("sapwood_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _watch(path: str, wake: Callable[[], None], stop: threading.Event) -> None:
    connection = None
    seen = None
    while not stop.wait(_LOOK_SECONDS):
        with suppress(sqlite3.Error):
            connection = connection or sqlite3.connect(path, isolation_level=None)
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version != seen:
                seen = version
                wake()
    if connection:
        connection.close()


class _Turn:
    """Whose turn it is among the threads of this process.

    A plain lock would not do: what a time limit raises in a thread that waits for one arrives just when it has it, and
    before it has noted that it must let it go.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._free = threading.Condition(self._lock)
        self._owner: object | None = None

    @contextmanager
    def held(self, seconds: float) -> Iterator[bool]:
        """Wait for the turn, and keep it; False where it did not come in time."""
        me = object()
        deadline = time.monotonic() + seconds
        try:
            with self._lock:
                while self._owner is not None and (left := deadline - time.monotonic()) > 0:
                    # In slices: a time-out that arrives with the word that it is free may take that along.
                    self._free.wait(min(left, _SLICE))
                if self._owner is None:
                    self._owner = me
            yield self._owner is me
        finally:
            with self._lock:
                if self._owner is me:
                    self._owner = None
                if self._owner is None:
                    self._free.notify()


def _absolute(database: str | None) -> Path | None:
    if not database or database == ":memory:":
        return None
    if database.startswith("file:"):
        raise UnsupportedStore(
            "a SQLite URI names the file",
            why="its options could switch off the locks that keep jobs safe",
            mend="give the plain path: sqlite:///path/to/jobs.db",
        )
    try:
        return Path(database).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"{database!r} names no file", why=str(error), mend="for a file beside you: sqlite:///jobs.db"
        ) from error


def _create(path: Path) -> None:
    """Create the file for its owner only; one that is there keeps its mode."""
    with named(f"sqlite:///{path}"), suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))


def _refuse_network(path: Path) -> None:
    """Refuse a file system on which SQLite's locks do not hold between machines."""
    kind = _file_system(path)
    if kind in _NETWORK:
        raise UnsupportedStore(
            f"{path} is on a network file system ({kind})",
            why="SQLite's locks do not hold there, and jobs would be lost or done twice",
            mend="keep the file on a local disk, or use a database server",
        )
    if kind.split(".")[0] in _DOUBTFUL:
        _log.warning("%s is on %s: use it from one machine only, and test that its locks hold", path, kind)


def _file_system(path: Path) -> str:
    import psutil  # noqa: PLC0415 - not needed to list commands or to enqueue elsewhere

    real = path.parent.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    for folder in (real, *real.parents):
        if folder in mounts:
            return mounts[folder].lower()
    return ""
