"""What a job may know of its own run."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from msgspec import Struct, field

from sapwood.errors import TransactionMisused

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session


class JobContext(Struct, frozen=True, kw_only=True):
    """The run that a job is in: ``self.context``. Made without arguments it stands for no particular run, in tests."""

    job_id: int = 0
    """The id of the stored job, 0 where it runs inline."""

    job: str = ""
    """The stored name of the class."""

    queue: str = "default"
    priority: int = 50

    attempt: int = 1
    """The number of this try, 1 for the first."""

    max_attempts: int = 24

    run_at: datetime | None = None
    """When the job was due, None where it runs inline."""

    created_at: datetime | None = None
    """When the job was stored, None where it runs inline."""

    lock_token: int = 0
    """Grows with every claim of the job: lets another system tell a late try from a later one."""

    worker: str | None = None
    """Id of the worker, None where the job runs inline."""

    is_stopping: Callable[[], bool] = lambda: False

    @property
    def stopping(self) -> bool:
        """Whether the worker wants to stop: a long job may end here, and raise to be tried again."""
        return self.is_stopping()

    transaction: Any = None
    """What a transactional job works in, None for any other."""

    @property
    def connection(self) -> "Connection":
        """The connection of a transactional job: what is written there is committed together with its outcome.

        It opens the transaction when it is first asked for. To commit, roll back or close it is refused.

        Raises:
            TransactionMisused: the job is not transactional, or a coroutine, or over.
            StoreError: the database cannot be reached.
        """
        connection: Connection = self._transaction().connection()
        return connection

    @property
    def session(self) -> "Session":
        """A session on that connection. ``session.commit()`` ends a savepoint; what it has not flushed is, at the end.

        Raises:
            TransactionMisused: as for :attr:`connection`.
            StoreError: the database cannot be reached.
        """
        session: Session = self._transaction().session()
        return session

    async def aconnection(self) -> "AsyncConnection":
        """Return the connection of a transactional coroutine, as :attr:`connection` is that of a function."""
        connection: AsyncConnection = await self._transaction().aconnection()
        return connection

    async def asession(self) -> "AsyncSession":
        """Return a session on that connection, as :attr:`session` is one for a function."""
        session: AsyncSession = await self._transaction().asession()
        return session

    def _transaction(self) -> Any:
        if self.transaction is None:
            raise TransactionMisused(
                f"{self.job or 'this job'} has no transaction to work in",
                why="its class does not ask for one, or it was called as a plain function",
                mend="class ...(Job, transactional=True), and perform_later or perform_now",
            )
        return self.transaction

    inline_key: str = field(default_factory=lambda: f"inline-{uuid4().hex}")

    @property
    def idempotency_key(self) -> str:
        """The same for every try of this job: hand it to services that refuse to do one thing twice.

        Two inline runs have two keys, since they are two jobs.
        """
        return str(self.job_id) if self.job_id else self.inline_key
