"""MariaDB, and MySQL 8 by the same words, by PyMySQL at READ COMMITTED."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    NullPool,
    Row,
    Select,
    String,
    Table,
    cast,
    create_engine,
    func,
    insert,
    select,
)
from sqlalchemy.exc import DBAPIError

from sapwood.adapters.dialects.base import PLAIN, Head, Wanted, ready, scheduled
from sapwood.adapters.dialects.merging import Chain, Merge, Read
from sapwood.adapters.dialects.server import (
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    STATEMENT_SECONDS,
    ServerDialect,
    in_parts,
    size_of,
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
from sapwood.errors import StoreError

_LOCK_SECONDS = 3

_SESSION = (
    f"SET SESSION innodb_lock_wait_timeout = {_LOCK_SECONDS}, lock_wait_timeout = {_LOCK_SECONDS}, "
    # An open transaction of a host that is gone must not hold its locks for hours.
    "wait_timeout = 60 "
    # MariaDB makes a table of a list of a thousand ids, unless it is told not to.
    "/*M!100307 , in_predicate_conversion_threshold = 0 */"
)
_STATEMENT = f"/*M! , max_statement_time = {STATEMENT_SECONDS} */"
"""Read by MariaDB alone: MySQL, which has no such limit for what writes, takes it for a comment."""

_ROWS_PER_INSERT = 1_000

_BYTES_PER_INSERT = 8 << 20
_BYTES_ALWAYS_TAKEN = 1 << 19
"""Every server takes a packet of this size: it need not be asked."""

_MOST_LOOKED_AT = 20_000
"""Candidates looked at in one claim or promotion while others hold them; there are more at the next."""

_CONFLICTS = frozenset({1205, 1213, 3572})
"""A lock was waited for too long, a dead-lock, a lock that was not to be waited for."""

_MISSING = frozenset({1146, 1049})


_TROUBLES: Mapping[int, Trouble] = MappingProxyType(
    {
        **dict.fromkeys((1021, 1114), FULL),
        **dict.fromkeys((1036, 1290, 1792, 1836), READ_ONLY),
        **dict.fromkeys((1040, 1203, 1226), CROWDED),
        **dict.fromkeys((1053, 1079, 1927, 3169), STOPPING),
        **dict.fromkeys((1037, 1038, 1041, 1135), OVERLOADED),
        **dict.fromkeys((2002, 2003, 2006, 2013, 2014, 2055), UNREACHABLE),
    }
)
"""By the server's number, and by those of the driver from 2000 on."""

_OF_FILES = frozenset({1, 2, 3, 1004, 1016, 1024, 1026, 1030})
"""A file could not be made, read or written: the text says why."""

_NO_ROOM = ("No space left", "Errcode: 28", "error 28", "errno: 28", "Disk full", "quota")

_CONNECTING: Mapping[str, Any] = MappingProxyType(
    {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENCE_SECONDS, "write_timeout": SILENCE_SECONDS}
)

_OPTIONS = frozenset(
    {
        *("bind_address", "client_flag", "compress", "local_infile", "max_allowed_packet", "program_name"),
        *("connect_timeout", "read_timeout", "write_timeout"),
        *("read_default_file", "read_default_group", "server_public_key", "unix_socket"),
        *("ssl_ca", "ssl_capath", "ssl_cert", "ssl_check_hostname", "ssl_cipher", "ssl_disabled", "ssl_key"),
        *("ssl_key_password", "ssl_verify_cert", "ssl_verify_identity"),
    }
)
"""What may stand in a URL: options of PyMySQL that are text, and those that SQLAlchemy makes its ``ssl`` of."""


class MySQLDialect(ServerDialect):
    """MariaDB or MySQL."""

    driver = "mysql+pymysql"
    names = frozenset({"mysql", "mariadb"})
    present = "UTC_TIMESTAMP(6)"
    renamed = MappingProxyType({"mysqlconnector": {"connection_timeout": "connect_timeout"}})
    # How text travels, and who commits: on our own connections that is for us to say.
    without_effect = frozenset({"charset", "use_unicode", "collation", "autocommit", "echo"})

    def _engine_options(self) -> dict[str, Any]:
        return self._for_driver(_CONNECTING, f"{_SESSION} {_STATEMENT}")

    def _for_driver(self, settings: Mapping[str, Any], session: str) -> dict[str, Any]:
        return {
            "isolation_level": "READ COMMITTED",
            "connect_args": {"charset": "utf8mb4", **self._unless_told(settings), "init_command": session},
        }

    def _jobs_arguments(self) -> Mapping[str, Any]:
        return {"charset": "utf8mb4", "connect_timeout": CONNECT_SECONDS}

    def _async_arguments(self, url: URL) -> Mapping[str, Any]:
        return {} if "charset" in url.query else {"charset": "utf8mb4"}

    def limit(self, connection: Connection) -> None:
        """Say them to the end of the connection, which ends with the transaction."""
        connection.exec_driver_sql(f"{_SESSION} {_STATEMENT}")
        driver: Any = connection.connection.driver_connection
        # Nobody else is to wait for a server that has gone silent before it has answered the commit.
        if hasattr(driver, "_read_timeout"):
            driver._read_timeout = driver._write_timeout = SILENCE_SECONDS  # noqa: SLF001 - it has no other door

    def room(self, connection: Connection) -> int | None:
        """Ask the server."""
        most: int = connection.exec_driver_sql("SELECT @@max_connections").scalar_one()
        _, used = connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Threads_connected'").one()
        return most - int(used)

    @contextmanager
    def patient(self, engine: Engine) -> Iterator[Connection]:
        """Use a connection of its own: what a pooled one is told when it connects would have to be told back."""
        del engine
        options = self._for_driver({"connect_timeout": CONNECT_SECONDS}, _SESSION)
        with create_engine(self._url, poolclass=NullPool, hide_parameters=True, **options).begin() as connection:
            yield connection

    def _options(self) -> frozenset[str]:
        return _OPTIONS

    def clock(self, connection: Connection) -> datetime:
        """Ask the server."""
        moment: datetime = connection.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
        return moment.replace(tzinfo=UTC)

    def insert(self, connection: Connection, jobs: Table, rows: Sequence[Mapping[str, Any]]) -> Sequence[int]:
        """Insert in parts: a server that is sent more than it takes at once hangs up."""
        if len(rows) == 1:
            return super().insert(connection, jobs, rows)
        parts = in_parts(rows, most_bytes=_most_bytes(connection, rows), most_rows=_ROWS_PER_INSERT)
        if connection.dialect.insert_returning:
            return tuple(
                chain.from_iterable(super(MySQLDialect, self).insert(connection, jobs, part) for part in parts)
            )
        # MySQL returns only the first id of a statement: the others follow it.
        step = connection.exec_driver_sql("SELECT @@auto_increment_increment").scalar_one()
        ids: list[int] = []
        for part in parts:
            first = connection.execute(insert(jobs).values(part), execution_options=PLAIN).lastrowid
            ids.extend(first + step * number for number in range(len(part)))
        return tuple(ids)

    def among(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        """List the ids: MySQL has no arrays."""
        return column.in_(ids)

    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Say it in MySQL's words."""
        return cast(column, String)

    # --- finding ----------------------------------------------------------------------------------------------------

    def distinct(
        self, connection: Connection, column: ColumnElement[Any], condition: ColumnElement[bool]
    ) -> Sequence[Any]:
        """Ask for one after the other: to MariaDB a recursion over the smallest is a scan of all."""
        values: list[Any] = []
        smallest = select(func.min(column)).where(condition)
        value = connection.scalar(smallest)
        while value is not None:
            values.append(value)
            value = connection.scalar(smallest.where(column > value))
        return values

    def spans_queues(self, *, alone: bool) -> bool:
        """One index begins with the state and no queue, for jobs set apart too."""
        del alone
        return True

    def is_ready(self, connection: Connection, wanted: Wanted) -> bool:
        """Look for the first."""
        return bool(self._merge(connection, wanted).read(1))

    def ready_rows(self, connection: Connection, wanted: Wanted) -> Sequence[Row[Any]]:
        """Lock the first ones that are free."""
        claimable = ready(wanted.jobs, alone=wanted.alone)
        if wanted.queues is not None:
            claimable &= wanted.jobs.c.queue.in_(wanted.queues)
        candidates = self._merge(connection, wanted)
        return self._free(connection, wanted.jobs, select(wanted.jobs).where(claimable), candidates, wanted.limit)

    def _merge(self, connection: Connection, wanted: Wanted) -> Merge:
        """Return the one read over all queues, or one for each queue that is named."""
        standing = f"state = 'ready' AND alone = {int(wanted.alone)}"
        if wanted.queues is None:
            reads = [Read(_source(connection, wanted.jobs, "urgent"), standing, ())]
        else:
            source = _source(connection, wanted.jobs, "claim")
            reads = [Read(source, f"{standing} AND queue = %s", (queue,)) for queue in wanted.queues]
        return Merge(connection, reads, self.order)

    def heads(self, connection: Connection, jobs: Table) -> Sequence[Head]:
        """Ask for one after the other, those set apart by themselves: the index begins with the two."""
        found: list[Head] = []
        for alone in (0, 1):
            waiting = select(jobs.c.priority, jobs.c.run_at).where(scheduled(jobs), jobs.c.alone == alone)
            first = _by("urgent", jobs, waiting).order_by(jobs.c.priority, jobs.c.run_at).limit(1)
            head = connection.execute(first).first()
            while head is not None:
                found.append(Head(head.priority, head.run_at, alone=bool(alone)))
                head = connection.execute(first.where(jobs.c.priority > head.priority)).first()
        return found

    def due(
        self, connection: Connection, jobs: Table, heads: Sequence[Head], limit: int, now: datetime
    ) -> Sequence[int]:
        """Read one priority after the other; jobs set apart are merged with those of their priority."""
        source, levels = _source(connection, jobs, "urgent"), dict[int, list[Read]]()
        until = now.astimezone(UTC).replace(tzinfo=None)
        for head in sorted(heads):
            waiting = (
                f"state = 'scheduled' AND alone = {int(head.alone)} AND priority = {head.priority} AND run_at <= %s"
            )
            levels.setdefault(head.priority, []).append(Read(source, waiting, (until,)))
        chain = Chain([Merge(connection, reads, self.order) for reads in levels.values()])
        still_due = select(jobs.c.id).where(scheduled(jobs), jobs.c.run_at <= now)
        return [row.id for row in self._free(connection, jobs, still_due, chain, limit)]

    def _free(
        self, connection: Connection, jobs: Table, rows: Select[Any], candidates: Merge | Chain, limit: int
    ) -> Sequence[Row[Any]]:
        """Lock by primary key the candidates that nobody has, look at them again; read on while rows are missing."""
        free: list[Row[Any]] = []
        looked_at, count = 0, limit
        while len(free) < limit and looked_at < _MOST_LOOKED_AT:
            ids = candidates.read(count)
            if ids:
                these = _by("PRIMARY", jobs, rows.where(self.among(jobs.c.id, ids))).with_for_update(skip_locked=True)
                locked = {row.id: row for row in connection.execute(these)}
                free.extend(locked[each] for each in ids if each in locked)
            if len(ids) < count:
                break
            looked_at, count = looked_at + count, 2 * count
        return free[:limit]

    def is_missing_table(self, error: DBAPIError) -> bool:
        """Know it by its number."""
        return _number(error) in _MISSING

    def is_missing_column(self, error: DBAPIError) -> bool:
        """Know it by its number."""
        return _number(error) == 1054  # noqa: PLR2004 - the number is its name

    def is_conflict(self, error: DBAPIError) -> bool:
        """Know it by its number. A lock that was waited for too long undoes a statement only: all is undone by us."""
        return _number(error) in _CONFLICTS

    def translated(self, error: DBAPIError) -> StoreError | None:
        """Name what the server reports; a sum that is too large (1690) is the fault of a row, not of the network."""
        return None if _number(error) == 1690 else super().translated(error)  # noqa: PLR2004 - the number is its name

    def _is_overdue(self, error: DBAPIError) -> bool:
        return _number(error) == 1969  # noqa: PLR2004 - the number is its name

    def _trouble(self, error: DBAPIError, said: str) -> Trouble | None:
        number = _number(error)
        if number in _OF_FILES:
            return FULL if any(word in said for word in _NO_ROOM) else DAMAGED
        return _TROUBLES.get(number)


def _most_bytes(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many bytes of rows a statement may have: half of what the server takes, and not too many."""
    if sum(map(size_of, rows)) <= _BYTES_ALWAYS_TAKEN:
        return _BYTES_ALWAYS_TAKEN
    taken: int = connection.exec_driver_sql("SELECT @@max_allowed_packet", execution_options=PLAIN).scalar_one()
    return min(_BYTES_PER_INSERT, taken // 2)


def _forced(index: str, jobs: Table) -> str:
    """Return the hint to take an index, whatever the statistics say of a table that was empty a moment ago."""
    name = index if index == "PRIMARY" else f"{jobs.name}_{index}_idx"
    # The names of tables are identifiers, checked when they were made.
    return f"FORCE INDEX (`{name}`)"


def _by(index: str, jobs: Table, read: Select[Any]) -> Select[Any]:
    return read.with_hint(jobs, _forced(index, jobs))


def _source(connection: Connection, jobs: Table, index: str) -> str:
    return f"{connection.dialect.identifier_preparer.format_table(jobs)} {_forced(index, jobs)}"


def _number(error: DBAPIError) -> int:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0
