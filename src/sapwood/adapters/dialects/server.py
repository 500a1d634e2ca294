"""What PostgreSQL and MySQL have in common: a server that is reached over a network, by several hosts at once."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import URL, Connection, Engine, NullPool, Table, create_engine, event, literal_column, select
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError

from sapwood.adapters.dialects.base import PLAIN, Dialect, Greeting, Pooling
from sapwood.adapters.dialects.troubles import UNREACHABLE, Trouble
from sapwood.adapters.tables import Instant
from sapwood.errors import ConfigurationError, SchemaMissing, StoreError, StoreUnavailable
from sapwood.wording import masked

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 5
LOCK_SECONDS = 2
SILENCE_SECONDS = 15
"""How long the network may be silent in the middle of something before the connection counts as lost."""

_TRUST_SECONDS = 1.0
"""A pooled connection that was used this recently is not asked whether it still lives."""

_BYTES_PER_ROW = 1_000
_BYTES_PER_LETTER = 8


class ServerDialect(Dialect):
    """A database server.

    Args:
        url: where it is; the driver is chosen here.
    """

    driver: ClassVar[str]

    present: ClassVar[str]
    """What asks the server for its time."""

    renamed: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """For other drivers, what our own calls options of the same meaning."""

    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Options that concern only what the application's driver does by itself, and ours does not."""

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername=self.driver, query=self._query(url))

    @property
    def url(self) -> URL:
        """Where the server is."""
        return self._url

    def describe(self) -> str:
        """Return the URL without its password."""
        shown = self._url.set(drivername=self._url.get_backend_name(), query={})
        return shown.render_as_string(hide_password=True)

    def connect(self, pooling: Pooling) -> Engine:
        """Return an engine that notices dead connections before it uses them."""
        engine = create_engine(
            self._url,
            pool_size=pooling.kept,
            max_overflow=pooling.most - pooling.kept,
            pool_recycle=1800,
            hide_parameters=True,
            **self._engine_options(),
        )
        event.listen(engine, "checkout", _alive)
        event.listen(engine, "checkin", _note_use)
        return engine

    def jobs_engine(self) -> Engine:
        """Return an engine without a pool: what a job sets in its session must not meet the next one."""
        return create_engine(self._url, poolclass=NullPool, hide_parameters=True, **self._jobs_options())

    def jobs_async_engine(self, url: URL) -> "AsyncEngine":
        """Return one by the application's own driver."""
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - needs greenlet

        options = {"isolation_level": "READ COMMITTED", "connect_args": self._async_arguments(url)}
        return create_async_engine(url, poolclass=NullPool, hide_parameters=True, **options)

    def _jobs_options(self) -> dict[str, Any]:
        return {"isolation_level": "READ COMMITTED", "connect_args": self._unless_told(self._jobs_arguments())}

    @abstractmethod
    def _jobs_arguments(self) -> Mapping[str, Any]:
        """Return what our own driver is told when it connects for a job."""

    def _async_arguments(self, url: URL) -> Mapping[str, Any]:
        """Return what an asynchronous driver is told when it connects for a job."""
        del url
        return {}

    def _query(self, url: URL) -> Mapping[str, str | tuple[str, ...]]:
        """Return the options of a URL, which may be of another driver, as our own driver knows them.

        Raises:
            ConfigurationError: it does not know one, and nothing is left out in silence.
        """
        theirs = url.drivername.partition("+")[2]
        renamed = self.renamed.get(theirs, {})
        query = {renamed.get(name, name): given for name, given in url.query.items() if name not in self.without_effect}
        unknown = sorted(set(query) - self._options())
        if unknown:
            ours = self.driver.partition("+")[2]
            raise ConfigurationError(
                f"{', '.join(unknown)} in the URL of the database cannot be used",
                why=f"Sapwood connects by {ours}, which has no such option",
                mend=f'give it a URL of its own: SQLAlchemyAdapter("{self._url_like(url)}"), with options of {ours}',
            )
        return query

    def _url_like(self, url: URL) -> str:
        return url.set(drivername=self.driver, query={}).render_as_string(hide_password=True)

    @abstractmethod
    def _options(self) -> frozenset[str]:
        """Return the options that may stand in a URL of our own driver."""

    def _unless_told(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the URL does not say otherwise."""
        return {name: value for name, value in settings.items() if name not in self._url.query}

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

    def _greeted(self, connection: Connection, meta: Table) -> Greeting:
        """Ask for all at once: the ids cost no trip of their own, so that none need be remembered for a connection."""
        told = (
            select(meta.c.value).where(meta.c.key == key).scalar_subquery().label(key)
            for key in ("installation_id", "oldest_reader")
        )
        asked = select(literal_column(self.present, Instant()).label("now"), *told)
        return Greeting(*connection.execute(asked, execution_options=PLAIN).one())

    def translated(self, error: DBAPIError) -> StoreError | None:
        """Name what the server reports."""
        said = next(iter(masked(str(error.orig)).strip().splitlines()), type(error.orig).__name__)
        if self.is_missing_table(error):
            return self.schema_missing()
        if self.is_missing_column(error):
            return self.schema_outdated(said)
        trouble = self._trouble(error, said)
        if trouble is not None:
            return trouble.error(self.describe(), said)
        if self._is_overdue(error):
            return StoreUnavailable(
                f"{self.describe()}: a statement took too long and was ended",
                why=said,
                mend="see what keeps the server busy; workers try again by themselves",
            )
        if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
            return UNREACHABLE.error(self.describe(), said)
        return None

    def schema_missing(self) -> SchemaMissing:
        """Return the error for a database without our tables."""
        return SchemaMissing(
            f"{self.describe()} has no tables of Sapwood",
            mend="run `sapwood migrate`, or `sapwood migrate --sql` for your own migration tool",
        )

    @abstractmethod
    def _is_overdue(self, error: DBAPIError) -> bool:
        """Say whether the server ended a statement that took longer than it may."""

    @abstractmethod
    def _trouble(self, error: DBAPIError, said: str) -> Trouble | None:
        """Return what ails the server, by its code or, where the driver has none, by its words."""


def size_of(row: Mapping[str, Any]) -> int:
    """Return how many bytes a row of jobs takes in a statement at most, every quote in it escaped."""
    return _BYTES_PER_ROW + 2 * len(row["args"]) + _BYTES_PER_LETTER * (len(row["job"]) + len(row["queue"]))


def in_parts(
    rows: Sequence[Mapping[str, Any]], *, most_bytes: int, most_rows: int | None = None
) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Cut rows into parts that one statement can take; a row that is too large for any is a part of its own."""
    part: list[Mapping[str, Any]] = []
    taken = 0
    for row in rows:
        size = size_of(row)
        if part and (taken + size > most_bytes or len(part) == most_rows):
            yield part
            part, taken = [], 0
        part.append(row)
        taken += size
    yield part


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
