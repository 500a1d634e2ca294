"""MariaDB, and MySQL 8 by the same words, by PyMySQL at READ COMMITTED."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    NullPool,
    Select,
    Table,
    create_engine,
    insert,
    select,
    union_all,
)
from sqlalchemy.exc import DBAPIError

from sapwood.adapters.dialects.base import PLAIN
from sapwood.adapters.dialects.server import (
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    STATEMENT_SECONDS,
    ServerDialect,
    in_parts,
    size_of,
)
from sapwood.errors import StoreError, StoreFull, StoreReadOnly

_LOCK_SECONDS = 3

_SESSION = (
    f"SET SESSION innodb_lock_wait_timeout = {_LOCK_SECONDS}, lock_wait_timeout = {_LOCK_SECONDS}, "
    # An open transaction of a host that is gone must not hold its locks for hours.
    "wait_timeout = 60"
)
_STATEMENT = f"/*M! , max_statement_time = {STATEMENT_SECONDS} */"
"""Read by MariaDB alone: MySQL, which has no such limit for what writes, takes it for a comment."""

_ROWS_PER_INSERT = 1_000

_BYTES_PER_INSERT = 8 << 20
_BYTES_ALWAYS_TAKEN = 1 << 19
"""Every server takes a packet of this size: it need not be asked."""

_CONFLICTS = frozenset({1205, 1213, 3572})
"""A lock was waited for too long, a dead-lock, a lock that was not to be waited for."""

_MISSING = frozenset({1146, 1049})


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
    partial_indexes = False
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

    def merged(self, reads: Sequence[Select[Any]], order: Sequence[str], limit: int) -> Select[Any]:
        """Read each as far as the limit, in the order of its index, and sort the little that comes of it."""
        if len(reads) == 1:
            return _first(reads[0], order, limit)
        compound = union_all(*(select(_first(read, order, limit).subquery()) for read in reads)).subquery()
        return select(compound).order_by(*(compound.c[name] for name in order)).limit(limit)

    def is_missing_table(self, error: DBAPIError) -> bool:
        """Know it by its number."""
        return _number(error) in _MISSING

    def is_missing_column(self, error: DBAPIError) -> bool:
        """Know it by its number."""
        return _number(error) == 1054  # noqa: PLR2004 - the number is its name

    def is_conflict(self, error: DBAPIError) -> bool:
        """Know it by its number. A lock that was waited for too long undoes a statement only: all is undone by us."""
        return _number(error) in _CONFLICTS

    def _is_overdue(self, error: DBAPIError) -> bool:
        return _number(error) == 1969  # noqa: PLR2004 - the number is its name

    def _kind_of(self, error: DBAPIError) -> type[StoreError] | None:
        return {1021: StoreFull, 1114: StoreFull, 1290: StoreReadOnly, 1792: StoreReadOnly, 1836: StoreReadOnly}.get(
            _number(error)
        )


def _most_bytes(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many bytes of rows a statement may have: half of what the server takes, and not too many."""
    if sum(map(size_of, rows)) <= _BYTES_ALWAYS_TAKEN:
        return _BYTES_ALWAYS_TAKEN
    taken: int = connection.exec_driver_sql("SELECT @@max_allowed_packet", execution_options=PLAIN).scalar_one()
    return min(_BYTES_PER_INSERT, taken // 2)


def _first(read: Select[Any], order: Sequence[str], limit: int) -> Select[Any]:
    return read.order_by(*(read.selected_columns[name] for name in order)).limit(limit)


def _number(error: DBAPIError) -> int:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0
