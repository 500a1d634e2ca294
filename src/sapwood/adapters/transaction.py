"""The transaction that a job works in: opened at first use, guarded while the job has it, ended with its outcome."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sapwood.adapters.base import Transaction, wrong_colour
from sapwood.adapters.joining import Borrowed
from sapwood.aside import aside, uninterrupted
from sapwood.errors import CommitUnknown, StoreError, TransactionMisused, UnsupportedConnection
from sapwood.lifecycle import Outcome
from sapwood.record import JobRecord

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

LONG_SECONDS = 1.0
"""A transaction that keeps everybody else from writing for longer is told of."""


_log = logging.getLogger("sapwood")


class JobConnection(Connection):
    """A connection whose transaction is not the job's to end."""

    def commit(self) -> None:
        """Refuse."""
        self._refuse("commit", "return from perform, or use session.commit(), which ends a savepoint")

    def rollback(self) -> None:
        """Refuse."""
        self._refuse("rollback", "raise an exception; for a part that may fail: with connection.begin_nested()")

    def close(self) -> None:
        """Refuse."""
        self._refuse("close", "leave it open")

    def invalidate(self, exception: BaseException | None = None) -> None:
        """Refuse the job, let SQLAlchemy note that the connection is lost."""
        if exception is None:
            self._refuse("invalidate", "raise an exception")
        super().invalidate(exception)

    def _refuse(self, verb: str, mend: str) -> NoReturn:
        raise TransactionMisused(
            f"{verb}() of the connection that a transactional job works on",
            why="its transaction is committed together with the outcome of the job, once perform has returned",
            mend=mend,
        )


def guarded(connection: Connection) -> JobConnection:
    """Return a caller's own connection, the same in all but that a job cannot end its transaction."""
    alike = JobConnection.__new__(JobConnection)
    alike.__dict__ = connection.__dict__
    return alike


class Means(NamedTuple):
    """What such a transaction needs of its adapter."""

    engine: Callable[[], Engine]
    turn: Callable[[Transaction], AbstractContextManager[None]]
    """Waits until the job may write, where only one can."""

    is_alone: bool
    """Whether it keeps everybody else from writing."""

    limit: Callable[[Connection], None]
    settle: Callable[[Connection, JobRecord, Outcome], bool]
    """Writes an outcome by the fence; says whether it was written."""

    named: Callable[[], AbstractContextManager[None]]
    """Names the errors of the database."""

    place: str


class Work(Transaction):
    """A transaction of its own, by a synchronous driver, or by an asynchronous one from within its greenlet.

    Args:
        means: the adapter's.
        record: the job, None for one that is not stored.
    """

    def __init__(self, means: Means, record: JobRecord | None) -> None:
        self._means = means
        self._record = record
        self._connection: JobConnection | None = None
        self._session: Session | None = None
        self._opening = Lock()
        self._turn = ExitStack()
        self._since = 0.0
        self._is_over = False

    def connection(self) -> Connection:
        """Return its connection, which opens it."""
        with self._opening:
            if self._connection is None:
                self.take_turn()
                self.begin()
        return self.raw

    def session(self) -> Session:
        """Return its session."""
        if self._session is None:
            self._session = Session(bind=self.connection(), join_transaction_mode="create_savepoint")
        return self._session

    def joinable(self) -> object:
        """Return the connection itself."""
        return self.raw

    @property
    def raw(self) -> JobConnection:
        """Its connection, which must be open."""
        if self._connection is None:
            raise _over()
        return self._connection

    def use(self, session: Session) -> None:
        """Flush and close ``session``, of somebody else's making, at the end."""
        self._session = session

    @property
    def waits_for_its_turn(self) -> bool:
        """Whether one transaction at a time may write."""
        return self._means.is_alone

    def take_turn(self) -> None:
        """Wait until it may begin."""
        if self._is_over:
            raise _over()
        with self._means.named():
            self._turn.enter_context(self._means.turn(self))
        self._since = time.monotonic()

    def begin(self) -> None:
        """Connect and begin. The savepoint is gone, should the job end the transaction behind our back."""
        connection = None
        try:
            with self._means.named():
                connection = JobConnection(self._means.engine())
                connection.begin()
                connection.exec_driver_sql("SAVEPOINT sapwood_job")
        except BaseException:
            self._turn.close()
            if connection is not None:
                _closed(connection)
            raise
        self._connection = connection
        self.is_open = True

    def commit(self, outcome: Outcome | None) -> bool:
        """Flush the session, settle, and commit."""
        connection = self.raw
        try:
            if self._session is not None:
                self._session.commit()
                self._session.close()
            self._see_that_it_is_whole(connection)
            if not self._settled(connection, outcome):
                return False
            self._commit(connection)
            return True
        finally:
            self._end(connection)

    def rollback(self) -> None:
        """Undo everything."""
        if self._connection is not None:
            self._end(self._connection)
        self._is_over = True
        # It may have had its turn, and no more.
        self._turn.close()

    def _see_that_it_is_whole(self, connection: Connection) -> None:
        try:
            connection.exec_driver_sql("RELEASE SAVEPOINT sapwood_job")
        except DBAPIError as error:
            with self._means.named():
                if error.connection_invalidated:
                    raise
            raise TransactionMisused(
                "the transaction that the job worked in is broken, or was ended in it",
                why=str(error.orig).partition("\n")[0],
                mend="let statements that may fail do so in connection.begin_nested(); no COMMIT or ROLLBACK as text, "
                "and on MariaDB nothing that commits by itself, such as CREATE TABLE",
            ) from error

    def _settled(self, connection: Connection, outcome: Outcome | None) -> bool:
        """Settle the job, where there is one."""
        if self._record is None or outcome is None:
            return True
        try:
            with self._means.named():
                self._means.limit(connection)
                return self._means.settle(connection, self._record, outcome)
        except StoreError as error:
            # Not committed for certain; but whoever asks the row finds out when its lock is free.
            raise self._unknown(error) from error

    def _commit(self, connection: Connection) -> None:
        try:
            with self._means.named():
                Connection.commit(connection)
        except DBAPIError:
            # Any other than those that have a name of ours is an answer: the database refused what it was to commit.
            raise
        except BaseException as error:
            # Lost, or interrupted while it was waited for.
            raise self._unknown(error) from error

    def _unknown(self, error: BaseException) -> CommitUnknown:
        return CommitUnknown(
            f"the commit of a job's transaction in {self._means.place} was not answered",
            why=str(error) or type(error).__name__,
            mend="what became of it is told by the row of the job",
        )

    def _end(self, connection: JobConnection) -> None:
        self.is_open, self._is_over, self._connection = False, True, None
        try:
            if self._session is not None:
                with suppress(Exception):
                    self._session.close()
            _closed(connection)
        finally:
            self._turn.close()
        seconds = time.monotonic() - self._since
        if self._means.is_alone and seconds > LONG_SECONDS:
            _log.warning(
                "%s: the transaction of %s was open for %.1f s, and nobody else could write meanwhile"
                " – do what takes long before self.context.connection is used, or keep these jobs on a server",
                self._means.place,
                "a job" if self._record is None else f"job #{self._record.id}",
                seconds,
            )


class _OfCoroutine(Transaction):
    """A transaction that is used with await alone."""

    def connection(self) -> Any:
        """Refuse: it is for coroutines."""
        raise wrong_colour("without")

    def session(self) -> Any:
        """Refuse: it is for coroutines."""
        raise wrong_colour("without")

    def commit(self, outcome: Outcome | None) -> bool:
        """Refuse: it is for coroutines."""
        del outcome
        raise wrong_colour("without")

    def rollback(self) -> None:
        """Refuse: it is for coroutines."""
        raise wrong_colour("without")


class AsyncWork(_OfCoroutine):
    """The same for a coroutine: the synchronous one does the work, within a greenlet.

    Args:
        work: it.
        engine: what the coroutine's connections are made of.
    """

    def __init__(self, work: Work, engine: "Callable[[], AsyncEngine]") -> None:
        self._work = work
        self._engine = engine
        self._opening = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._session: AsyncSession | None = None

    @property
    def is_open(self) -> bool:  # type: ignore[override]  # asked of the one that knows
        """Whether it has been opened, and not ended."""
        return self._work.is_open

    def joinable(self) -> object:
        """Return the connection itself."""
        return self._connection

    async def aconnection(self) -> "AsyncConnection":
        """Return its connection, which opens it."""
        from sqlalchemy.ext.asyncio import AsyncConnection  # noqa: PLC0415 - needs greenlet
        from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 - as above

        async with self._opening:
            if self._connection is None:
                await self._taken_turn()
                await greenlet_spawn(self._work.begin)
                self._connection = AsyncConnection(self._engine(), self._work.raw)
        return self._connection

    async def asession(self) -> "AsyncSession":
        """Return its session."""
        from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 - needs greenlet

        if self._session is None:
            bind = await self.aconnection()
            self._session = AsyncSession(bind=bind, join_transaction_mode="create_savepoint")
            self._work.use(self._session.sync_session)
        return self._session

    async def acommit(self, outcome: Outcome | None) -> bool:
        """Flush the session, settle, and commit: not to be interrupted, since nobody would know what came of it."""
        from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 - needs greenlet

        return bool(await uninterrupted(greenlet_spawn(self._work.commit, outcome)))

    async def arollback(self) -> None:
        """Undo everything."""
        from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 - needs greenlet

        await uninterrupted(greenlet_spawn(self._work.rollback))

    async def _taken_turn(self) -> None:
        """Wait for the turn in a thread. Who is cancelled meanwhile must not get it later and keep it for ever."""
        if not self._work.waits_for_its_turn:
            self._work.take_turn()
            return
        waiting = aside(self._work.take_turn)
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await uninterrupted(waiting)
            self._work.rollback()
            raise


class Joined(Transaction):
    """A job that runs inline in its caller's transaction: a savepoint, and no more than that is ever ended.

    Args:
        lent: what the caller has lent.
        prepare: begins its transaction, where its driver would not do so for a savepoint.
    """

    def __init__(self, lent: Borrowed, prepare: Callable[[Connection], None]) -> None:
        self._lent = lent
        self._prepare = prepare
        self._connection: Connection | None = None
        self._session: Session | None = None
        self._savepoint: Any = None

    def connection(self) -> Connection:
        """Return the caller's connection, within a savepoint."""
        if self._connection is None:
            self._prepare(self._lent.connection)
            self._savepoint = self._lent.connection.begin_nested()
            self._connection = guarded(self._lent.connection)
            self.is_open = True
        return self._connection

    def session(self) -> Session:
        """Return a session on it."""
        if self._session is None:
            self._session = Session(bind=self.connection(), join_transaction_mode="create_savepoint")
        return self._session

    def joinable(self) -> object:
        """Return the caller's connection, or the session that will commit it."""
        return self._lent.session or self._lent.connection

    def commit(self, outcome: Outcome | None) -> bool:
        """Flush the session and release the savepoint."""
        del outcome
        if self._session is not None:
            self._session.commit()
            self._session.close()
        self._savepoint.commit()
        self.is_open = False
        return True

    def rollback(self) -> None:
        """Undo to the savepoint."""
        with suppress(Exception):
            if self._session is not None:
                self._session.close()
        with suppress(Exception):
            if self._savepoint is not None and self._savepoint.is_active:
                self._savepoint.rollback()
        self.is_open = False


class AsyncJoined(_OfCoroutine):
    """The same for a coroutine.

    Args:
        lent: an AsyncSession or AsyncConnection.
        prepare: begins its transaction, where its driver would not do so for a savepoint.

    Raises:
        UnsupportedConnection: it is neither.
    """

    def __init__(self, lent: Any, prepare: Callable[[Connection], None]) -> None:
        if not hasattr(lent, "run_sync"):
            raise UnsupportedConnection(
                f"a {type(lent).__name__} cannot be used by a coroutine that is transactional",
                why="its transaction lives outside of the event loop",
                mend="hand in an AsyncSession or an AsyncConnection",
            )
        self._lent = lent
        self._prepare = prepare
        self._connection: AsyncConnection | None = None
        self._session: AsyncSession | None = None
        self._savepoint: Any = None

    def joinable(self) -> object:
        """Return what the caller has lent."""
        return self._lent

    async def aconnection(self) -> "AsyncConnection":
        """Return the caller's connection, within a savepoint."""
        from sqlalchemy.ext.asyncio import AsyncConnection  # noqa: PLC0415 - needs greenlet

        if self._connection is None:
            connection: AsyncConnection = (
                await self._lent.connection() if hasattr(self._lent, "sync_session") else self._lent
            )
            await connection.run_sync(self._prepare)
            self._savepoint = await connection.begin_nested()
            self._connection = await connection.run_sync(lambda sync: AsyncConnection(connection.engine, guarded(sync)))
            self.is_open = True
        return self._connection

    async def asession(self) -> "AsyncSession":
        """Return a session on it."""
        from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 - needs greenlet

        if self._session is None:
            self._session = AsyncSession(bind=await self.aconnection(), join_transaction_mode="create_savepoint")
        return self._session

    async def acommit(self, outcome: Outcome | None) -> bool:
        """Flush the session and release the savepoint."""
        del outcome
        if self._session is not None:
            await self._session.commit()
            await self._session.close()
        await self._savepoint.commit()
        self.is_open = False
        return True

    async def arollback(self) -> None:
        """Undo to the savepoint."""
        with suppress(Exception):
            if self._session is not None:
                await self._session.close()
        with suppress(Exception):
            if self._savepoint is not None and self._savepoint.is_active:
                await self._savepoint.rollback()
        self.is_open = False


def _closed(connection: Connection) -> None:
    """Close a connection, whatever state it is in; what is not committed is undone."""
    with suppress(Exception):
        Connection.rollback(connection)
    with suppress(Exception):
        Connection.close(connection)


def _over() -> TransactionMisused:
    return TransactionMisused(
        "the transaction of the job is over",
        why="perform has ended, and its connection with it",
        mend="use self.context.connection within perform only",
    )
