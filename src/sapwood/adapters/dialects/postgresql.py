"""PostgreSQL, by psycopg 3, with no state in the session: a transaction pooler may stand in between."""

import contextlib
import logging
import random
import secrets
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from types import MappingProxyType
from typing import Any, cast
from weakref import WeakSet

import psycopg
from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Table,
    any_,
    bindparam,
    event,
    func,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql.compiler import IdentifierPreparer

from sapwood.adapters.dialects.base import LATE, PLAIN, Greeting, Head, Pooling, Swap, Swapped, Wanted, scheduled
from sapwood.adapters.dialects.server import (
    CONNECT_SECONDS,
    LOCK_SECONDS,
    SILENCE_SECONDS,
    STATEMENT_SECONDS,
    ServerDialect,
    in_parts,
)
from sapwood.adapters.dialects.troubles import (
    CROWDED,
    DAMAGED,
    FULL,
    OVERLOADED,
    READ_ONLY,
    STOPPING,
    UNREACHABLE,
    Trouble,
)
from sapwood.adapters.tables import ALL_READY, Instant
from sapwood.record import JobState

_log = logging.getLogger("sapwood")

_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; "
    f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; "
    # A queue is empty when its statistics are gathered, and full a moment later: what they suggest is always wrong.
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; "
    # An open transaction of a host that is gone must not hold its locks for hours.
    "SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL timezone = 'UTC'"
)

_LIMITS = (
    "SELECT "
    f"set_config('statement_timeout', '{STATEMENT_SECONDS}s', true), "
    f"set_config('lock_timeout', '{LOCK_SECONDS}s', true), "
    "set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), "
    "set_config('idle_in_transaction_session_timeout', '60s', true)"
)
"""The same for the end of a job's transaction, which began without limits."""

_ROOM = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
  - coalesce(current_setting('reserved_connections', true)::int, 0)
  - (SELECT coalesce(sum(numbackends), 0)::int FROM pg_stat_database)
"""

_CONNECTING: Mapping[str, Any] = MappingProxyType(
    {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": SILENCE_SECONDS * 1000,
        # A prepared statement is state in the session, which a pooler gives to somebody else.
        "prepare_threshold": None,
        "application_name": "sapwood",
    }
)
"""What the driver is told for every connection, be it the pool's or the listener's."""

_CHANNEL = "sapwood"
_COALESCE_SECONDS = 0.1
_PROBE_SECONDS = 2.0
_DEAF_SECONDS = 300.0

_MIGRATION_LOCK = 0x5A9_000D
"""Any number that nobody else is likely to lock."""

_BYTES_PER_INSERT = 64 << 20

_CONFLICTS = frozenset({"40001", "40P01", "55P03"})
_MISSING = frozenset({"42P01", "3F000"})


_TROUBLES: Mapping[str, Trouble] = MappingProxyType(
    {
        "53100": FULL,
        "25006": READ_ONLY,
        "53300": CROWDED,
        **dict.fromkeys(("57P01", "57P02", "57P03"), STOPPING),
        **dict.fromkeys(("53000", "53200"), OVERLOADED),
        "58030": DAMAGED,
        **dict.fromkeys(("08000", "08003", "08006", "57P05", "25P03"), UNREACHABLE),
    }
)

_SAID_AT_THE_DOOR: Sequence[tuple[str, Trouble]] = (
    ("too many", CROWDED),
    ("connection slots are reserved", CROWDED),
    ("the database system is", STOPPING),
    ("session is read-only", READ_ONLY),
)
"""A connection that is refused has no code."""

_MANY_DEAD = 10_000
"""With so many dead rows in the table, claims begin where the last ones ended."""

_WHOLE_SECONDS = 2.0
"""How often a claim looks at all that is ready nevertheless."""

_END = (101, datetime.max.replace(tzinfo=UTC))
"""Behind every job."""


class _Mark(Struct, frozen=True):
    """Low water: before a place in the order, nothing is ready that was due before a moment."""

    place: tuple[int, datetime]
    """Priority and ``run_at``."""

    since: datetime
    until: float

    def parts(self) -> Sequence[str]:
        """Return the conditions for the rest: what has come since, and what stands behind."""
        recent = "priority < %(priority)s::smallint AND run_at >= %(since)s::timestamptz"
        behind = "(priority, run_at) >= (%(priority)s::smallint, %(start)s::timestamptz)"
        return [recent] if self.place == _END else [recent, behind]


class _Marks:
    """What the claims of this process have learned, for each set of queues.

    While somebody keeps an old snapshot open, no dead row can be removed, and each claim would step over all of them.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, Sequence[str] | None, bool], _Mark] = {}

    def of(self, wanted: Wanted) -> _Mark | None:
        """Return what is known, None where it is time to look at everything."""
        mark = self._marks.get(_claim_key(wanted))
        return mark if mark is not None and monotonic() < mark.until else None

    def learn(self, wanted: Wanted, mark: _Mark | None, place: tuple[int, datetime], me: Any) -> None:
        """Note what a claim took last, or that it took all there was."""
        if me.dead < _MANY_DEAD or not wanted.limit:
            return
        since = me.present - LATE
        if mark is not None and place < mark.place:
            place, since = mark.place, mark.since
        until = mark.until if mark is not None else monotonic() + _WHOLE_SECONDS
        self._marks = {**self._marks, _claim_key(wanted): _Mark(place, since, until)}

    def forget(self) -> None:
        """Look at everything in the next claim."""
        self._marks = {}


def _claim_key(wanted: Wanted) -> tuple[str, Sequence[str] | None, bool]:
    return wanted.jobs.fullname, wanted.queues, wanted.alone


class PostgreSQLDialect(ServerDialect):
    """PostgreSQL."""

    driver = "postgresql+psycopg"
    names = frozenset({"postgresql"})
    present = "statement_timestamp()"
    tells = True
    exchanges = True
    renamed = MappingProxyType({"asyncpg": {"ssl": "sslmode", "timeout": "connect_timeout"}})
    # All of them are about statements prepared by name: here there are none.
    without_effect = frozenset(
        {
            "prepared_statement_cache_size",
            "prepared_statement_name_func",
            "statement_cache_size",
            "max_cached_statement_lifetime",
            "max_cacheable_statement_size",
            "prepare_threshold",
        }
    )

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._engine: Engine | None = None
        self._notifier: _Notifier | None = None
        self._greeted_before: WeakSet[Any] = WeakSet()
        self._marks = _Marks()

    def _engine_options(self) -> dict[str, Any]:
        return {
            # The driver sends nothing by itself: a transaction begins with our own BEGIN, and its time-outs with it.
            "isolation_level": "AUTOCOMMIT",
            "connect_args": self._unless_told(_CONNECTING),
        }

    def _jobs_arguments(self) -> Mapping[str, Any]:
        return _CONNECTING

    def limit(self, connection: Connection) -> None:
        """Say them to the end of the transaction, in words that every driver can send."""
        connection.exec_driver_sql(_LIMITS)

    def _options(self) -> frozenset[str]:
        return frozenset(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())

    def connect(self, pooling: Pooling) -> Engine:
        """Return an engine whose transactions begin with our own BEGIN."""
        engine = super().connect(pooling)
        event.listen(engine, "do_connect", _connect)
        event.listen(engine, "begin", _begin)
        self._engine = engine
        self._notifier = None
        return engine

    def room(self, connection: Connection) -> int | None:
        """Ask the server; a pooler in between has room of its own, which it tells only to its administrator."""
        if _is_pooled(cast("psycopg.Connection[Any]", connection.connection.driver_connection)):
            return None
        return cast("int", connection.exec_driver_sql(_ROOM).scalar_one())

    @contextmanager
    def patient(self, engine: Engine) -> Iterator[Connection]:
        """Lift the limit to the end of the transaction."""
        with self.writing(engine) as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            driver = cast("_Connection", connection.connection.driver_connection)
            driver.is_patient = True
            try:
                yield connection
            finally:
                driver.is_patient = False

    def clock(self, connection: Connection) -> datetime:
        """Ask the server."""
        moment: datetime = connection.exec_driver_sql("SELECT statement_timestamp()").scalar_one()
        return moment

    def among(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        """Pass the ids as one array."""
        return column == any_(bindparam(None, list(ids), type_=ARRAY(BigInteger)))

    def insert(self, connection: Connection, jobs: Table, rows: Sequence[Mapping[str, Any]]) -> Sequence[int]:
        """Send what differs between rows as one array for each column, to drivers whose words we know."""
        if len(rows) == 1 or connection.dialect.driver != "psycopg":
            return super().insert(connection, jobs, rows)
        ids: list[int] = []
        for part in in_parts(rows, most_bytes=_BYTES_PER_INSERT):
            values: dict[str, Any] = {name: [row[name] for row in part] for name in part[0]}
            same = {name: given[0] for name, given in values.items() if given.count(given[0]) == len(part)}
            # At least one is an array, which tells how many rows there are.
            same.pop("args", None)
            sql = _insert_sql(jobs, list(values), same, connection.dialect.identifier_preparer)
            stored = connection.exec_driver_sql(sql, values | same, execution_options=PLAIN)
            # They are given out in order; that they are returned so is promised by nobody.
            ids.extend(sorted(stored.scalars()))
        return tuple(ids)

    # --- finding ----------------------------------------------------------------------------------------------------

    def spans_queues(self, *, alone: bool) -> bool:
        """There is an index over all queues, without the jobs set apart: of these there are few."""
        return not alone

    def heads(self, connection: Connection, jobs: Table) -> Sequence[Head]:
        """Step from each priority to the first row of the next."""
        waiting = select(jobs.c.priority, jobs.c.run_at).where(scheduled(jobs))
        waiting = waiting.order_by(jobs.c.priority, jobs.c.run_at).limit(1)
        heads = waiting.cte("heads", recursive=True)
        following = waiting.where(jobs.c.priority > heads.c.priority).lateral()
        heads = heads.union_all(select(following).select_from(heads.join(following, true())))
        return [Head(*row) for row in connection.execute(select(heads))]

    def due(
        self, connection: Connection, jobs: Table, heads: Sequence[Head], limit: int, now: datetime
    ) -> Sequence[int]:
        """Read one priority after the other, and lock what nobody has as its rows come, until they are enough."""
        parts = [
            read.order_by(*(read.selected_columns[name] for name in self.order))
            for read in self.due_reads(jobs, heads, now)
        ]
        # Parts are appended in the order they are said in. To sort, or to merge, would be to begin with all of them.
        first = (union_all(*parts) if len(parts) > 1 else parts[0]).subquery()
        # Found by primary key; the state is looked at again in words that no index knows.
        still_due = select(jobs.c.id).where(
            jobs.c.id == first.c.id, jobs.c.state.concat("") == JobState.SCHEDULED.value, jobs.c.run_at <= now
        )
        free = still_due.with_for_update(skip_locked=True).lateral()
        return connection.scalars(select(free.c.id).select_from(first.join(free, true())).limit(limit)).all()

    # --- settling and claiming --------------------------------------------------------------------------------------

    def exchange(self, connection: Connection, exchange: Swap) -> Swapped:
        """Do all of it in one statement: one round trip, and no time in between for a lock to be held."""
        # From an empty array the planner proves what it likes, and reads a partial index for it. No job has the id 0.
        gone = exchange.gone or [(0, 0)]
        mark = self._marks.of(exchange.wanted)
        values = {
            "me": exchange.worker,
            "ids": [job for job, _ in gone],
            "claims": [f"{job}:{token}" for job, token in gone],
            "limit": exchange.wanted.limit,
            "now": exchange.now,
        }
        values.update((f"q{number}", queue) for number, queue in enumerate(exchange.wanted.queues or ("",)))
        if mark is not None:
            values.update(priority=mark.place[0], start=min(mark.place[1], mark.since), since=mark.since)
        rows = connection.exec_driver_sql(
            self._exchange_sql(exchange, mark, connection.dialect.identifier_preparer), values
        ).all()
        deleted: Sequence[int] = next((row.deleted or () for row in rows if row.kind == "done"), ())
        claimed = [row[4:] for row in rows if row.kind == "taken"]
        me = next((row for row in rows if row.kind == "me"), None)
        if me is not None:
            last = max(((row.priority, row.run_at) for row in rows if row.kind == "taken"), default=_END)
            self._marks.learn(exchange.wanted, mark, last if len(claimed) == exchange.wanted.limit else _END, me)
        return Swapped(deleted=deleted, claimed=claimed, alive=me is not None)

    def came_late(self) -> None:
        """Look at all that is ready in the next claim."""
        self._marks.forget()

    def _greeted(self, connection: Connection, meta: Table) -> Greeting:
        """Look for the tables first, once for each connection: a statement that fails would end the transaction."""
        theirs = connection.connection.driver_connection
        if theirs not in self._greeted_before:
            name = connection.dialect.identifier_preparer.format_table(meta)
            if connection.scalar(select(func.to_regclass(name).is_(None)), execution_options=PLAIN):
                raise self.schema_missing()
            self._greeted_before.add(theirs)
        return super()._greeted(connection, meta)

    def _exchange_sql(self, exchange: Swap, mark: _Mark | None, quoting: IdentifierPreparer) -> str:
        """Return the text of the statement: constant, but for the names of the tables and the number of queues."""
        jobs, workers = quoting.format_table(exchange.wanted.jobs), quoting.format_table(exchange.workers)
        columns = list(exchange.wanted.jobs.c.keys())
        return f"""
WITH me AS MATERIALIZED (SELECT id FROM {workers} WHERE id = %(me)s FOR KEY SHARE),
done AS (
  -- Found by primary key; the fence is a filter, in words that no index knows.
  DELETE FROM {jobs} j WHERE j.id = ANY (%(ids)s::bigint[]) AND j.id || ':' || j.lock_token = ANY (%(claims)s::text[])
    AND j.state || '' = 'running' AND j.locked_by || '' = %(me)s
  RETURNING j.id),
next AS MATERIALIZED (
  -- Materialised, so that the limit is kept: a subquery that is run again would lock more.
  {self._next_sql(exchange.wanted, mark, jobs)}),
taken AS (
  UPDATE {jobs} j SET state = 'running', locked_by = %(me)s, lock_token = lock_token + 1, attempts = attempts + 1,
    locked_at = coalesce(%(now)s::timestamptz, statement_timestamp())
  WHERE j.id = ANY (ARRAY(SELECT id FROM next))
  RETURNING {", ".join(f"j.{column}" for column in columns)})
SELECT 'taken' AS kind, NULL::bigint[] AS deleted, 0::bigint AS dead, NULL::timestamptz AS present,
  {", ".join(columns)} FROM taken
UNION ALL SELECT 'done', array_agg(id), 0, NULL, {", ".join("NULL" for _ in columns)} FROM done
UNION ALL SELECT 'me', NULL, pg_stat_get_dead_tuples('{jobs}'::regclass),
  coalesce(%(now)s::timestamptz, statement_timestamp()), {", ".join("NULL" for _ in columns)} FROM me
"""  # noqa: S608 - the names are quoted by the one function that does so

    def _next_sql(self, wanted: Wanted, mark: _Mark | None, jobs: str) -> str:
        """Return the text of the read that locks the ids to be claimed."""
        order = ", ".join(self.order)
        queues = [f"%(q{number})s" for number in range(len(wanted.queues or ("",)))]
        standing = f"state = 'ready' AND alone = {int(wanted.alone)}"
        reads = [ALL_READY] if wanted.queues is None else [f"{standing} AND queue = {queue}" for queue in queues]
        if mark is not None:
            reads = [f"{read} AND {part}" for read in reads for part in mark.parts()]
        if len(reads) == 1:
            return f"""SELECT id FROM {jobs} j WHERE {reads[0]} AND EXISTS (SELECT 1 FROM me)
  ORDER BY {order} LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED"""  # noqa: S608 - the names are quoted
        # Each part says its order: only then are ordered index scans appended a row at a time (Merge Append). They
        # cannot be locked there; each row is as it comes, found by primary key, until there are enough.
        parts = " UNION ALL ".join(
            f"(SELECT {order} FROM {jobs} WHERE {read} ORDER BY {order})"  # noqa: S608 - quoted
            for read in reads
        )
        served = "true" if wanted.queues is None else f"j.queue || '' IN ({', '.join(queues)})"
        return f"""SELECT free.id FROM (SELECT id FROM ({parts}) AS merged ORDER BY {order}) AS first
  CROSS JOIN LATERAL (
    SELECT j.id FROM {jobs} j WHERE j.id = first.id AND j.state || '' = 'ready' AND j.alone + 0 = {int(wanted.alone)}
      AND {served} FOR UPDATE OF j SKIP LOCKED) AS free
  WHERE true AND EXISTS (SELECT 1 FROM me) LIMIT %(limit)s"""  # noqa: S608 - the names are quoted

    def is_missing_table(self, error: DBAPIError) -> bool:
        """Know it by its code."""
        return _code(error) in _MISSING

    def is_missing_column(self, error: DBAPIError) -> bool:
        """Know it by its code."""
        return _code(error) == "42703"

    def is_conflict(self, error: DBAPIError) -> bool:
        """Know it by its code."""
        return _code(error) in _CONFLICTS

    def _is_overdue(self, error: DBAPIError) -> bool:
        return _code(error) == "57014"

    def _trouble(self, error: DBAPIError, said: str) -> Trouble | None:
        code = _code(error)
        if code:
            return _TROUBLES.get(code)
        return next((trouble for words, trouble in _SAID_AT_THE_DOOR if words in said), None)

    def alone_to_migrate(self, connection: Connection) -> None:
        """Take a lock that ends with the transaction: two that create one table at once would fail."""
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))

    # --- waking up --------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        """Notify listeners, soon, and not once per commit."""
        if self._notifier is None and self._engine is not None:
            self._notifier = _Notifier(self._engine)
        if self._notifier is not None:
            self._notifier.ask()

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` on notifications, where they arrive: a transaction pooler swallows them, and polling serves."""
        if self._engine is None:
            return lambda: None
        listener = _Listener(self._engine, wake, self.describe())
        listener.start()
        return listener.stop

    def close(self) -> None:
        """End the notifier."""
        if self._notifier is not None:
            self._notifier.stop()
            self._notifier = None


class _Connection(psycopg.Connection[Any]):
    """A connection whose server must answer.

    The server ends a statement that takes too long, and the kernel a connection whose other end is silent; but
    something in between may take all that is sent and never answer, and the driver would wait for ever.
    """

    is_patient = False
    """Whether a statement may take as long as it needs."""

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Wait as the driver does, and no longer than a network may be silent."""
        return super().wait(gen if self.is_patient else self._answered(gen), *arguments, **options)

    def _answered(self, gen: Any) -> Generator[Any, Any, Any]:
        give_up = monotonic() + SILENCE_SECONDS
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and monotonic() > give_up:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer from the server in {SILENCE_SECONDS} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def _connect(dialect: Any, record: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> _Connection:
    del dialect, record
    return _Connection.connect(*arguments, **options)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(_BEGIN)


def _insert_sql(jobs: Table, columns: Sequence[str], same: Collection[str], quoting: IdentifierPreparer) -> str:
    """Return the text of the statement: constant, but for the table's name and which columns are alike in all rows."""
    casts = {name: _cast(jobs.c[name]) for name in columns}
    varied = [name for name in columns if name not in same]
    arrays = ", ".join(f"%({name})s::{casts[name]}[]" for name in varied)
    chosen = (f"%({name})s::{casts[name]}" if name in same else f"given.{name}" for name in columns)
    return f"""INSERT INTO {quoting.format_table(jobs)} ({", ".join(columns)})
SELECT {", ".join(chosen)} FROM unnest({arrays}) WITH ORDINALITY AS given({", ".join(varied)}, place)
ORDER BY given.place RETURNING id
"""  # noqa: S608 - the columns are ours, the table's name is quoted by the one function that does so


def _cast(column: Column[Any]) -> str:
    """Return what a value is sent as. Not the column's own type: a cast to it would cut what is too long."""
    if isinstance(column.type, Instant):
        return "timestamptz"
    return "bigint" if isinstance(column.type, Integer) else "text"


def _code(error: DBAPIError) -> str:
    # psycopg2, which an application may use, has a name of its own for it.
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""


class _Notifier:
    """Sends one notification for all that was asked for within a tenth of a second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sapwood-notify", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Have a notification sent."""
        self._asked.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._asked.set()
        self._thread.join()

    def _run(self) -> None:
        while self._asked.wait() and not self._stopped.is_set():
            self._asked.clear()
            # A notification that is lost costs the listeners a poll, no more.
            with contextlib.suppress(Exception), self._engine.begin() as connection:
                connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": _CHANNEL})
            self._stopped.wait(_COALESCE_SECONDS)


def _is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Say whether a pooler stands in between: what it calls the server's process is not what the server does.

    It is asked before anything is said that would stay on the server's connection, which a pooler gives to others.
    """
    asked = connection.execute("SELECT pg_backend_pid()").fetchone()
    return asked is None or asked[0] != connection.info.backend_pid


class _Listener:
    """Listens on a connection of its own, and again on another whenever that is lost."""

    def __init__(self, engine: Engine, wake: Callable[[], None], server: str) -> None:
        self._engine = engine
        self._wake = wake
        self._server = server
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sapwood-listen", daemon=True)
        self.hears = threading.Event()
        """Set while notifications arrive."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                with self._connected() as connection:
                    arrives = not _is_pooled(connection) and self._arrives(connection)
                    if arrives:
                        failures = 0
                        self.hears.set()
                        self._wake()
                        self._listen(connection)
                if not arrives:
                    _log.info("%s sends no wake-ups here, as behind a pooler: polling serves", self._server)
                    self._stopped.wait(_DEAF_SECONDS)
                    continue
            except (psycopg.Error, SQLAlchemyError):
                failures += 1
            finally:
                self.hears.clear()
            longest = min(10.0, 0.1 * 2 ** min(failures, 10))
            self._stopped.wait(longest * random.random())  # noqa: S311 - a spread, not a secret

    def _connected(self) -> psycopg.Connection[Any]:
        """Connect as the pool does, outside of it: this connection rests in a wait for most of its life."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.pop("context", None)
        return _Connection.connect(*arguments, **{**_CONNECTING, **options}, autocommit=True)

    def _arrives(self, connection: psycopg.Connection[Any]) -> bool:
        """Listen, and say whether a notification that somebody else sends arrives here."""
        connection.execute(f"LISTEN {_CHANNEL}")
        token = secrets.token_hex(8)
        with self._engine.begin() as other:
            other.execute(text("SELECT pg_notify(:channel, :token)"), {"channel": _CHANNEL, "token": token})
        return any(heard.payload == token for heard in connection.notifies(timeout=_PROBE_SECONDS))

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        while not self._stopped.is_set():
            for _ in connection.notifies(timeout=0.5, stop_after=1):
                self._wake()
