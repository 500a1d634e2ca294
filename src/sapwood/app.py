"""The application: which adapters keep its jobs, which queues and workers it has, and who is told what happens."""

import difflib
import importlib
import logging
import pkgutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct, field

from sapwood import registry
from sapwood.adapters.base import BaseAdapter, Transaction
from sapwood.context import JobContext
from sapwood.errors import ConfigurationError, NoApp, UnknownAdapter, UnknownQueue
from sapwood.events import Events, JobsEnqueued
from sapwood.log import LogListener
from sapwood.options import run_time
from sapwood.record import JobDraft, check_queue
from sapwood.timing import Timing

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

Middleware = Callable[[JobContext], "AbstractContextManager[Any] | AbstractAsyncContextManager[Any]"]
"""From the context of a run to what is entered around it. An async one serves async jobs only."""


class WorkerGroup(Struct, frozen=True, kw_only=True):
    """Workers that are alike.

    Raises:
        ConfigurationError: a value that no worker could use.
    """

    queues: Sequence[str] | None = None
    """The queues they serve, None for all."""

    count: int = 1
    """How many processes."""

    concurrency: int = 5
    """How many jobs each of them runs at once."""

    adapter: str = "default"
    """The name of the adapter whose jobs they take."""

    poll_interval: float = 0.5
    """Seconds between two looks when nothing wakes them. Wake-ups only make it quicker."""

    max_jobs: int | None = None
    """After so many runs a worker makes room for a fresh one, None for never."""

    max_memory: int | None = None
    """With more bytes of resident memory a worker makes room for a fresh one, between jobs; None for never."""

    max_runtime: float | timedelta | None = None
    """How long a run may take where the job's class does not say it: seconds or a timedelta, None for no limit."""

    def __post_init__(self) -> None:
        """Refuse what no worker could use."""
        if self.queues is not None and not _strings(self.queues, "WorkerGroup(queues=...)"):
            raise ConfigurationError("a WorkerGroup has an empty list of queues", mend="leave queues out to serve all")
        for name in ("count", "concurrency", "max_jobs", "max_memory"):
            value = getattr(self, name)
            if value is None and name.startswith("max_"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"WorkerGroup({name}={value!r})", why="it is a whole number from 1 up")
        if isinstance(self.poll_interval, bool) or not isinstance(self.poll_interval, int | float):
            raise ConfigurationError(
                f"WorkerGroup(poll_interval={self.poll_interval!r})", why="it is a number of seconds"
            )
        run_time(self.max_runtime, "WorkerGroup(max_runtime=...)")
        if not self.poll_interval > 0:
            raise ConfigurationError(f"WorkerGroup(poll_interval={self.poll_interval!r})", why="it is above 0")


class _Transaction(Struct, eq=False):
    """A connection of the caller's that jobs join."""

    app: "Sapwood"
    adapter: str
    connection: object
    is_open: bool = True
    """False once the block has been left: a task that it started must not go on to use its connection."""

    def joined(self) -> object | None:
        """Return the connection to join now, None where there is none."""
        return self.connection if self.is_open else None


class _Work(_Transaction, eq=False):
    """The transaction that a job works in, which may not be open yet. ``connection`` is a :class:`Transaction`."""

    told: list[JobsEnqueued] = field(default_factory=list)
    """What is to be told after its commit."""

    def joined(self) -> object | None:
        """Return its connection, once the job has opened it."""
        work = self.connection
        return work.joinable() if isinstance(work, Transaction) and work.is_open else None


_transactions: ContextVar[tuple[_Transaction, ...]] = ContextVar("sapwood_transactions", default=())

_current: "Sapwood | None" = None
_making = threading.Lock()


def current_app() -> "Sapwood":
    """Return the app that was made last.

    Raises:
        NoApp: none was made yet.
    """
    if _current is None:
        raise NoApp(
            "there is no app",
            why="no Sapwood was made in this process before a job was enqueued",
            mend='app = Sapwood("sqlite:///jobs.db"), in a module that is imported first',
        )
    return _current


class Sapwood:
    """An application with background jobs. Nothing is opened or created until it is used.

    The one made last is the current one, which serves every job class that names no other (``class A(Job, app=two)``).

    Args:
        store: where jobs are kept: a URL, an engine of SQLAlchemy, or an adapter. Short for
            ``adapters={"default": store}``.
        adapters: several such places by name.
        queues: the queues there are: a job in any other is an error. None: any name will do.
        workers: the groups of workers, one worker per adapter if none are given.
        imports: modules, and packages with all their modules, that define jobs.
        logger: for what Sapwood and the jobs have to say, the standard library's ``sapwood`` if none is given.
        timing: when workers beat, and when they count as dead; the same on all hosts.
        middleware: each is called with the :class:`JobContext` of a run and returns a context manager around it.

    Raises:
        ConfigurationError: something is declared wrongly.
    """

    reference: str | None = None
    """How another process finds this app, ``module:attribute``, once somebody has found it so."""

    def __init__(
        self,
        store: Any = None,
        *,
        adapters: Mapping[str, Any] | None = None,
        queues: Sequence[str] | None = None,
        workers: Sequence[WorkerGroup] = (),
        imports: Sequence[str] = (),
        logger: Any = None,
        middleware: Sequence[Middleware] = (),
        timing: Timing | None = None,
    ) -> None:
        self.adapters: Mapping[str, BaseAdapter] = MappingProxyType(_adapters(store, adapters))
        """The adapters by name."""

        self.queues = None if queues is None else tuple(_strings(queues, "queues"))
        """The queues that are declared, None for any."""

        for queue in self.queues or ():
            check_queue(queue)

        self.imports = tuple(_strings(imports, "imports"))
        """The modules and packages with jobs."""

        self.logger: Any = logging.getLogger("sapwood") if logger is None else logger
        """The app's logger."""

        self.timing = timing or Timing()
        """When workers beat, and when they count as dead."""

        self.middleware = tuple(middleware)
        """What is wrapped around each job, the outermost first."""

        self.events = Events()
        """Where facts are told; ``app.events.listen(listener)`` to hear of them."""

        self.workers = tuple(workers) or tuple(WorkerGroup(adapter=name) for name in self.adapters)
        """The groups of workers."""

        self._check_workers()
        self.events.listen(LogListener(self.logger_for))
        self._become_current()

    def __repr__(self) -> str:
        stores = ", ".join(f"{name}={adapter.describe()!r}" for name, adapter in self.adapters.items())
        return f"<Sapwood {stores}>"

    # --- enqueuing --------------------------------------------------------------------------------------------------

    def enqueue(
        self, drafts: Sequence[JobDraft], *, adapter: str = "default", connection: object | None = None
    ) -> Sequence[int]:
        """Store drafts in one round trip, in the transaction of ``connection`` if one is given; return their ids."""
        ids = self.adapter(adapter).enqueue(drafts, connection=connection)
        enqueued = JobsEnqueued(tuple(drafts), tuple(ids))
        work = self._work_on(connection)
        if work is None:
            self.events.emit(enqueued)
        else:
            work.told.append(enqueued)
        return ids

    @contextmanager
    def transaction(self, connection: object, *, adapter: str = "default") -> Iterator[None]:
        """Have every job that is enqueued inside the block join the transaction of ``connection``.

        It is never committed, rolled back or closed here. Jobs of another adapter, and those with a ``connection`` of
        their own, go their own way. A task or thread that outlives the block does not join any more.

        Args:
            connection: a Session, Connection, AsyncSession or AsyncConnection of SQLAlchemy.
            adapter: the name of the adapter whose database that is.
        """
        self.adapter(adapter)
        transaction = _Transaction(self, adapter, connection)
        token = _transactions.set((*_transactions.get(), transaction))
        try:
            yield
        finally:
            transaction.is_open = False
            _transactions.reset(token)

    def joined(self, adapter: str) -> object | None:
        """Return the connection that jobs of ``adapter`` join here and now, the innermost :meth:`transaction`'s."""
        for transaction in reversed(_transactions.get()):
            if transaction.app is self and transaction.adapter == adapter:
                joined = transaction.joined()
                if joined is not None:
                    return joined
        return None

    @contextmanager
    def working(self, transaction: Transaction, *, adapter: str) -> Iterator[None]:
        """Have what a job enqueues inside the block join the transaction that it works in, once that is open."""
        work = _Work(self, adapter, transaction)
        token = _transactions.set((*_transactions.get(), work))
        try:
            yield
        finally:
            _transactions.reset(token)

    def worked(self, transaction: Transaction) -> None:
        """Tell, after its commit, what was enqueued in the transaction of a job."""
        for work in _transactions.get():
            if isinstance(work, _Work) and work.connection is transaction and work.told:
                for enqueued in work.told:
                    self.events.emit(enqueued)
                self.adapter(work.adapter).tell()

    def _work_on(self, connection: object) -> _Work | None:
        """Return the job's transaction that a connection is of, None where it is another's."""
        for work in _transactions.get():
            if isinstance(work, _Work) and connection is not None and work.app is self:
                joined = work.joined()
                if connection is joined or connection is getattr(joined, "sync_connection", joined):
                    return work
        return None

    # --- what is declared -------------------------------------------------------------------------------------------

    def adapter(self, name: str = "default") -> BaseAdapter:
        """Return the adapter of that name.

        Raises:
            UnknownAdapter: there is none.
        """
        try:
            return self.adapters[name]
        except (KeyError, TypeError):
            raise UnknownAdapter(
                f"there is no adapter {name!r}",
                why=f"the app has {_listed(self.adapters)}",
                mend=_mend(name, self.adapters),
            ) from None

    def check_queue(self, queue: str) -> None:
        """See that the app has that queue.

        Raises:
            UnknownQueue: it declares its queues, and not that one.
            ConfigurationError: no queue can have that name.
        """
        check_queue(queue)
        if self.queues is not None and queue not in self.queues:
            raise UnknownQueue(
                f"queue {queue!r} is not declared",
                why=f"the app has {_listed(self.queues)}",
                mend=_mend(queue, self.queues) or f"Sapwood(queues=[..., {queue!r}])",
            )

    def logger_for(self, job: str) -> Any:
        """Return the logger for jobs of that stored name: the class's own, or the app's. No name means the app."""
        job_class = registry.find(job)
        own = None if job_class is None else job_class.logger_of_class
        return self.logger if own is None else own

    # --- life -------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Import every module with jobs, and see that no two classes claim one name.

        Raises:
            ConfigurationError: a module in ``imports`` is not there, or a class is transactional where it cannot be.
                What a module raises comes through as it is.
            DuplicateJobName: two classes claim one name.
        """
        for name in self.imports:
            _import(name)
        registry.check()
        for job_class in registry.classes():
            if job_class.transactional and job_class.app_or_none() is self:
                job_class.check_driver(self)

    def migrate(self) -> Mapping[str, Sequence[str]]:
        """Bring the tables of every adapter up to this release; return the steps that each took."""
        return {name: adapter.migrate() for name, adapter in self.adapters.items()}

    def close(self) -> None:
        """Let go of connections and files. Whatever is used next opens them again."""
        for adapter in self.adapters.values():
            adapter.close()

    def _check_workers(self) -> None:
        for group in self.workers:
            self.adapter(group.adapter)
            for queue in group.queues or ():
                self.check_queue(queue)

    def _become_current(self) -> None:
        global _current
        with _making:
            before, _current = _current, self
        if before is not None:
            self.logger.info("%r is the current app now, %r was it before", self, before)


def _adapters(store: Any, adapters: Mapping[str, Any] | None) -> dict[str, BaseAdapter]:
    if (store is None) == (adapters is None):
        raise ConfigurationError(
            "Sapwood needs to know where jobs are kept, once"
            if store is None
            else "Sapwood was told twice where jobs are kept",
            mend='Sapwood("sqlite:///jobs.db"), or Sapwood(adapters={"default": ..., "audit": ...})',
        )
    places = {"default": store} if adapters is None else dict(adapters)
    if not places:
        raise ConfigurationError("adapters={} is empty", mend='Sapwood("sqlite:///jobs.db")')
    return {name: _adapter(place) for name, place in places.items()}


def _adapter(place: Any) -> BaseAdapter:
    if isinstance(place, BaseAdapter):
        return place
    if not isinstance(place, str) and not hasattr(place, "url") and not hasattr(place, "get_backend_name"):
        raise ConfigurationError(
            f"jobs cannot be kept in a {type(place).__name__}",
            why="a place is a URL, an engine of SQLAlchemy, or an adapter",
            mend='Sapwood("sqlite:///jobs.db")',
        )
    from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter  # noqa: PLC0415 - other adapters need no SQLAlchemy

    return SQLAlchemyAdapter(place)


def _strings(values: Any, what: str) -> Sequence[str]:
    named = isinstance(values, Collection) and not isinstance(values, str)
    if not named or not all(isinstance(value, str) and value for value in values):
        mend = f"[{values!r}]" if isinstance(values, str) else ""
        raise ConfigurationError(f"{what} is {values!r}", why="it is a list of names", mend=mend)
    return cast("Sequence[str]", values)


def _import(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"there is no module {name!r}, which Sapwood(imports=...) names",
            why=f"{error.name!r} is not on the path of this Python",
            mend="correct the name, or start from the directory that holds it",
        ) from error
    for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
        if not found.name.endswith(".__main__"):  # that one is a program: importing it would run it
            _import(found.name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _mend(name: Any, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1) if isinstance(name, str) else []
    return f"did you mean {close[0]!r}?" if close else ""
