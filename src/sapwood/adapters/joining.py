"""The caller's transaction: whose connection it is, where it leads, and what happens after its commit."""

import importlib
import sqlite3
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakSet

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.pool import PoolProxiedConnection

from sapwood.errors import ForeignConnection, UnsupportedConnection


class Borrowed(NamedTuple):
    """What a caller has lent us."""

    connection: Connection
    """The caller's own connection, in the caller's own transaction."""

    session: Session | None
    """The session that will commit it, where there is one."""


def borrowed(connection: object) -> Borrowed:
    """Return the connection behind what was handed in.

    Raises:
        UnsupportedConnection: there is none that could be used here.
    """
    if isinstance(connection, scoped_session):
        connection = connection()
    if isinstance(connection, Session):
        return Borrowed(_connection_of(connection), connection)
    if isinstance(connection, Connection):
        return Borrowed(connection, None)
    if hasattr(connection, "run_sync"):
        raise UnsupportedConnection(
            f"an {type(connection).__name__} cannot be used from synchronous code",
            why="its transaction lives on an event loop",
            mend="await .aperform_later(...), or call .run_sync(lambda sync: ...)",
        )
    lent = _lent(connection) or _lent(_unwrapped(connection))
    if lent is None:
        raise UnsupportedConnection(
            f"a {type(connection).__name__} cannot be joined",
            why="it is no connection that this adapter knows",
            mend="hand in a Session or Connection of SQLAlchemy, its async twin with aperform_later, "
            "or a connection of sqlite3, psycopg or PyMySQL",
        )
    return Borrowed(lent, None)


def _connection_of(session: Session) -> Connection:
    try:
        return session.connection()
    except UnboundExecutionError as error:
        raise UnsupportedConnection(
            "the session has no connection of its own",
            why="it is bound per table, and Sapwood's tables are not among them",
            mend="hand in session.connection(...) of the right database",
        ) from error


# --- a driver's own connection ----------------------------------------------------------------------------------------


class _Driver(NamedTuple):
    url: str
    """What SQLAlchemy calls it."""

    cursor: Callable[[Any], Any]
    """Makes a cursor that returns plain tuples, whatever rows the caller likes."""

    version: Callable[[Any], str] | None = None
    """Tells the database's version, where the words to be used depend on it. It asks nobody."""


def _psycopg_cursor(connection: Any) -> Any:
    rows = importlib.import_module("psycopg.rows")
    return importlib.import_module("psycopg").Cursor(connection, row_factory=rows.tuple_row)


def _psycopg2_cursor(connection: Any) -> Any:
    return connection.cursor(cursor_factory=importlib.import_module("psycopg2.extensions").cursor)


def _pymysql_cursor(connection: Any) -> Any:
    return importlib.import_module("pymysql.cursors").Cursor(connection)


_DRIVERS: Mapping[str, _Driver] = {
    "sqlite3.Connection": _Driver("sqlite+pysqlite://", sqlite3.Cursor, lambda _: sqlite3.sqlite_version),
    "psycopg.Connection": _Driver("postgresql+psycopg://", _psycopg_cursor),
    "psycopg2.extensions.connection": _Driver("postgresql+psycopg2://", _psycopg2_cursor),
    "pymysql.connections.Connection": _Driver(
        "mysql+pymysql://", _pymysql_cursor, lambda connection: str(connection.get_server_info())
    ),
}
"""Drivers whose bare connections can be joined, by the class of the connection."""


def _lent(connection: object) -> Connection | None:
    """Speak SQLAlchemy on a driver's connection, None where the driver is not known."""
    for kind in type(connection).__mro__:
        driver = _DRIVERS.get(f"{kind.__module__}.{kind.__qualname__}")
        if driver is not None:
            lent = _Lent(connection, driver)
            return Connection(_engine_for(driver, lent), connection=lent)
    return None


def _unwrapped(wrapper: object) -> object:
    """Return the driver's connection in a wrapper such as Django's, which opens it when it is first used."""
    if not hasattr(wrapper, "cursor"):
        return None
    if hasattr(wrapper, "ensure_connection"):
        wrapper.ensure_connection()
    return getattr(wrapper, "connection", None)


class _Lent(PoolProxiedConnection):
    """A driver's connection as SQLAlchemy expects to get it from a pool; all that can be done with it is to execute."""

    def __init__(self, connection: Any, driver: _Driver) -> None:
        self.driver_connection = connection
        self.dbapi_connection: Any = self
        self.driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver_connection, name)

    def cursor(self, *_: Any, **__: Any) -> Any:
        return self.driver.cursor(self.driver_connection)

    @property
    def is_valid(self) -> bool:
        return False

    @property
    def is_detached(self) -> bool:
        return True

    def commit(self) -> None:
        """Leave that to the caller."""

    def rollback(self) -> None:
        """Leave that to the caller."""

    def close(self) -> None:
        """Leave that to the caller."""


_engines: dict[tuple[str, str | None], Engine] = {}
_engines_lock = threading.Lock()


def _engine_for(driver: _Driver, lent: _Lent) -> Engine:
    """Return an engine that never connects: it knows a driver's words, and remembers the statements it has compiled."""
    key = (driver.url, driver.version(lent.driver_connection) if driver.version else None)
    with _engines_lock:
        if key not in _engines:
            engine = create_engine(driver.url, poolclass=NullPool)
            if driver.version:
                engine.dialect.initialize(Connection(engine, connection=lent))
            _engines[key] = engine
        return _engines[key]


# --- where it leads ---------------------------------------------------------------------------------------------------


class Installation:
    """Which installation the adapter's tables are, by the id that they carry, as far as that is known yet.

    A joined enqueue may not look it up elsewhere. Before the adapter has opened a connection of its own, the id that
    was met is remembered, and compared when it does.
    """

    def __init__(self) -> None:
        self._own: str | None = None
        self._met: str | None = None

    def met(self, theirs: str | None) -> None:
        """Refuse the id that a caller's connection leads to, if it is known to be another.

        Raises:
            ForeignConnection: it is.
        """
        expected = self._own or self._met
        if expected is not None and theirs != expected:
            raise ForeignConnection(
                "the connection leads to another database than the adapter's",
                why=f"the tables there are installation {theirs}, not {expected}",
                mend="hand in a connection to the adapter's database, or leave connection= out",
            )
        self._met = theirs

    def opened(self, own: str | None) -> None:
        """Learn the adapter's own id.

        Raises:
            ForeignConnection: jobs have been enqueued elsewhere meanwhile. It is told once.
        """
        met, self._met, self._own = self._met, None, own
        if met is not None and own is not None and met != own:
            raise ForeignConnection(
                "jobs were enqueued on a connection to another database than the adapter's",
                why=f"the tables there are installation {met}; the adapter's are {own}",
                mend="give the adapter the URL of the database that its jobs are enqueued in",
            )


# --- after the commit -------------------------------------------------------------------------------------------------


class AfterCommit:
    """Tells that jobs are there, once the session that they were enqueued in has committed.

    Args:
        tell: what to call.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._waiting: WeakSet[Session] = WeakSet()

    def expect(self, session: Session) -> None:
        """Tell it after the present transaction of ``session``, unless that is rolled back."""
        if not event.contains(session, "after_commit", self._committed):
            event.listen(session, "after_commit", self._committed)
            event.listen(session, "after_transaction_end", self._ended)
        self._waiting.add(session)

    def _committed(self, session: Session) -> None:
        # The release of a savepoint is reported in the same way, and nobody sees the jobs yet.
        if session in self._waiting and not session.in_nested_transaction():
            self._waiting.discard(session)
            self._tell()

    def _ended(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self._waiting.discard(session)
