"""What PostgreSQL and MySQL have in common: a server that is reached over a network, by several hosts at once."""

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, literal_column, select
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError

from sapwood.adapters.dialects.base import PLAIN, Dialect
from sapwood.adapters.tables import Instant
from sapwood.errors import SchemaMissing, StoreError, StoreUnavailable

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 5
LOCK_SECONDS = 2
SILENCE_SECONDS = 15
"""How long the network may be silent in the middle of something before the connection counts as lost."""

_TRUST_SECONDS = 1.0
"""A pooled connection that was used this recently is not asked whether it still lives."""


class ServerDialect(Dialect):
    """A database server.

    Args:
        url: where it is; the driver is chosen here.
    """

    driver: ClassVar[str]

    present: ClassVar[str]
    """What asks the server for its time."""

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername=self.driver)

    @property
    def url(self) -> URL:
        """Where the server is."""
        return self._url

    def describe(self) -> str:
        """Return the URL without its password."""
        shown = self._url.set(drivername=self._url.get_backend_name(), query={})
        return shown.render_as_string(hide_password=True)

    def connect(self) -> Engine:
        """Return an engine that notices dead connections before it uses them."""
        engine = create_engine(
            self._url, pool_size=5, max_overflow=10, pool_recycle=1800, hide_parameters=True, **self._engine_options()
        )
        event.listen(engine, "checkout", _alive)
        event.listen(engine, "checkin", _note_use)
        return engine

    @abstractmethod
    def _engine_options(self) -> dict[str, Any]:
        """Return what the driver is told when it connects."""

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Write at READ COMMITTED, within the time-outs."""
        with engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """Read as a transaction of its own."""
        with engine.begin() as connection:
            yield connection

    def _greeted(self, connection: Connection, meta: Table) -> tuple[datetime, str | None]:
        """Ask for both at once: the id costs no trip of its own, so that it need not be remembered for a connection."""
        installation = select(meta.c.value).where(meta.c.key == "installation_id").scalar_subquery()
        asked = select(literal_column(self.present, Instant()).label("now"), installation.label("installation"))
        now, installed = connection.execute(asked, execution_options=PLAIN).one()
        return now, installed

    def translated(self, error: DBAPIError) -> StoreError | None:
        """Name what the server reports."""
        said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        if self.is_missing_table(error):
            return self.schema_missing()
        kind = self._kind_of(error)
        if kind is not None:
            return kind(f"{self.describe()}: {said}")
        if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
            return StoreUnavailable(
                f"cannot reach {self.describe()}", why=said, mend="see that the server runs and that the URL is right"
            )
        return None

    def schema_missing(self) -> SchemaMissing:
        """Return the error for a database without our tables."""
        return SchemaMissing(
            f"{self.describe()} has no tables of Sapwood",
            mend="run `sapwood migrate`, or `sapwood migrate --sql` for your own migration tool",
        )

    @abstractmethod
    def _kind_of(self, error: DBAPIError) -> type[StoreError] | None:
        """Return the named error for a code of this server, None where there is none."""


def _note_use(dbapi_connection: Any, record: Any) -> None:
    del dbapi_connection
    record.info["used_at"] = time.monotonic()


def _alive(dbapi_connection: Any, record: Any, proxy: Any) -> None:
    """Ask a connection that has rested whether it still lives; the pool takes another if it does not."""
    rested = time.monotonic() - record.info.get("used_at", time.monotonic())
    if rested > _TRUST_SECONDS:
        try:
            cursor = dbapi_connection.cursor()
            cursor.execute("SELECT 1")
            cursor.close()
            dbapi_connection.rollback()
        except Exception as error:
            raise DisconnectionError from error
    del proxy
