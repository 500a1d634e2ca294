"""What users write: ``Job`` and ``@job``, and the ways to have them run."""

import asyncio
import copy
import difflib
import functools
import inspect
import logging
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, ClassVar, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

from sapwood import backoff, registry, transacting
from sapwood.app import Sapwood, current_app
from sapwood.arguments import Codec
from sapwood.calling import aperform, is_async, perform
from sapwood.context import JobContext
from sapwood.errors import (
    ConfigurationError,
    MissingPerform,
    NoApp,
    UnnamedJob,
    UnsupportedConnection,
)
from sapwood.handle import JobHandle
from sapwood.lifecycle import Succeeded
from sapwood.options import Options, check_priority, run_time
from sapwood.record import JobDraft, check_job, check_queue
from sapwood.transacting import Transacted, within

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Delivery = Literal["at_least_once", "at_most_once"]

_LEAST_MEMORY = 32 * 1024**2

_log = logging.getLogger("sapwood")


class Performs(Protocol[P, R_co]):
    """A class with a ``perform``. ``Job`` itself declares none, so that a job without one is a type error."""

    def perform(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Do the work."""
        ...


class PendingJob(Generic[R_co]):
    """A job with its arguments, not yet stored: what :func:`enqueue_all` takes."""

    def __init__(self, job_class: "type[Job]", options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.app = job_class.serving_app()
        self.job_class = job_class
        self.connection = options.connection
        if not job_class.can_perform():
            raise MissingPerform(
                f"{job_class.__qualname__} has no perform()",
                why="it can be a base of other jobs, but not run itself",
                mend=f"add it: def perform(self, ...) to {job_class.__qualname__}",
            )
        self.draft = JobDraft(
            job=job_class.stored_name(),
            args=job_class.codec().encode(args, kwargs),
            queue=options.queue or job_class.queue,
            priority=options.priority or job_class.priority,
            max_attempts=job_class.max_attempts,
            wait=options.seconds,
            run_at=options.wait_until,
        )
        self.app.check_queue(self.draft.queue)
        job_class.check_adapter(self.app)

    def enqueue(self) -> JobHandle[R_co]:
        """Store the job."""
        return _stored([self])[0]

    async def aenqueue(self) -> JobHandle[R_co]:
        """Store the job, from asynchronous code."""
        return (await aenqueue_all([self]))[0]


class Configured(Generic[P, R]):
    """A job class with options: what ``set()`` returns."""

    def __init__(self, job_class: "type[Job]", options: Options) -> None:
        self._job_class = job_class
        self._options = options

    def perform_later(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store the job; a worker performs it."""
        return self.build(*args, **kwargs).enqueue()

    async def aperform_later(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store the job, from asynchronous code."""
        return await self.build(*args, **kwargs).aenqueue()

    def perform_now(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Perform the job here and now; nothing is stored."""
        result: R = _performed_now(self._job_class, self._options, args, kwargs)
        return result

    def build(self, *args: P.args, **kwargs: P.kwargs) -> PendingJob[R]:
        """Return the job with its arguments, for :func:`enqueue_all`."""
        return PendingJob(self._job_class, self._options, args, kwargs)


class _LoggerOfRun:
    """What ``self.logger`` is: the logger that is declared, with the job's id, class, queue and try as extras."""

    def __get__(self, job: "Job | None", job_class: "type[Job]") -> Any:
        app = (job.app_of_run if job is not None else None) or job_class.app_or_none()
        logger = job_class.logger_of_class or (app.logger if app else _log)
        if job is None or not isinstance(logger, logging.Logger):
            return logger
        context = job.context
        told = {"job_id": context.job_id, "job": context.job, "queue": context.queue, "attempt": context.attempt}
        return logging.LoggerAdapter(logger, told)


class Job:
    """A background job: subclass it, write ``perform``, call ``perform_later``.

    Class keywords, or class attributes of the same name:

    Args:
        queue: the queue it waits in.
        priority: 1 is worked first, 100 last.
        max_attempts: how often it is tried in all.
        adapter: the adapter that keeps it.
        keep: keep the row and the result after success, instead of deleting it.
        app: the Sapwood it belongs to, instead of the one made last.
        name: the stored name, instead of ``module:QualName``.
        aliases: former names, so that jobs stored under them still find the class.
        logger: a logger of its own.
        max_runtime: seconds, or a timedelta, after which a run is ended: a failed try, reason "timeout".
        isolated: each run is a process of its own, which can be ended for certain.
        memory_limit: bytes that an isolated run may use.
        transactional: ``perform`` works in the transaction that settles the job, ``self.context.connection`` or
            ``self.context.session``: its effect there happens exactly once.
        delivery: ``"at_least_once"``, or ``"at_most_once"`` for what must never be begun a second time: whatever goes
            wrong once it has begun, the job is failed.

    Raises:
        ConfigurationError: a value that cannot be used.
    """

    queue: ClassVar[str] = "default"
    priority: ClassVar[int] = 50
    max_attempts: ClassVar[int] = 24
    adapter: ClassVar[str] = "default"
    keep: ClassVar[bool] = False
    app: ClassVar[Sapwood | None] = None
    name: ClassVar[str | None] = None
    aliases: ClassVar[Sequence[str]] = ()
    max_runtime: ClassVar[float | timedelta | None] = None
    isolated: ClassVar[bool] = False
    memory_limit: ClassVar[int | None] = None
    transactional: ClassVar[bool] = False
    delivery: ClassVar[Delivery] = "at_least_once"

    logger: Any = _LoggerOfRun()
    """The logger for this run. One of the standard library gets the job's id, class, queue and try as extras."""

    context: JobContext = JobContext()
    """The run that this instance is made for; that of no stored job where a test makes the instance itself."""

    logger_of_class: ClassVar[Any] = None
    _codec: ClassVar[Codec | None] = None
    runs_async: ClassVar[bool]
    app_of_run: Sapwood | None = None

    def __init_subclass__(  # noqa: PLR0913 - no **options: a typo in a class keyword is an error
        cls,
        *,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        adapter: str | None = None,
        keep: bool | None = None,
        app: Sapwood | None = None,
        name: str | None = None,
        aliases: Sequence[str] | None = None,
        logger: Any = None,
        max_runtime: float | timedelta | None = None,
        isolated: bool | None = None,
        memory_limit: int | None = None,
        transactional: bool | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        super().__init_subclass__()
        declared = {
            "queue": queue,
            "priority": priority,
            "max_attempts": max_attempts,
            "adapter": adapter,
            "keep": keep,
            "app": app,
            "name": name,
            "aliases": aliases,
            "logger": logger,
            "max_runtime": max_runtime,
            "isolated": isolated,
            "memory_limit": memory_limit,
            "transactional": transactional,
            "delivery": delivery,
        }
        for attribute, value in declared.items():
            if value is not None:
                setattr(cls, attribute, value)
        _take_logger(cls)
        _check_class(cls)
        # As far as it is known yet; all else is said when the app loads, or at the first enqueue.
        app_of_class = cls.app_or_none()
        if app_of_class is not None:
            cls.check_driver(app_of_class)
        if cls.can_perform():
            _register(cls)

    # --- having it done -----------------------------------------------------------------------------------------------

    @classmethod
    def perform_later(cls: type[Performs[P, R]], *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store the job; a worker performs it as soon as it can.

        Raises:
            InvalidArguments: ``perform`` does not accept them, or they cannot be stored.
            UnknownQueue: the app does not declare the queue.
            NoApp: there is no app.
            StoreError: the store could not take it.
        """
        return _configured(cls).perform_later(*args, **kwargs)

    @classmethod
    async def aperform_later(cls: type[Performs[P, R]], *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store the job, from asynchronous code."""
        return await _configured(cls).aperform_later(*args, **kwargs)

    @classmethod
    def perform_now(cls: type[Performs[P, R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Perform the job here and now, its arguments bound and encoded as if it were stored.

        What ``perform`` raises is raised; an asynchronous ``perform`` returns its coroutine.
        """
        result: R = _configured(cls).perform_now(*args, **kwargs)
        return result

    @classmethod
    def build(cls: type[Performs[P, R]], *args: P.args, **kwargs: P.kwargs) -> PendingJob[R]:
        """Return the job with its arguments, for :func:`enqueue_all`."""
        return _configured(cls).build(*args, **kwargs)

    @overload
    @classmethod
    def set(
        cls: type[Performs[P, R]],
        *,
        wait: float | timedelta = ...,
        queue: str = ...,
        priority: int = ...,
        connection: object = ...,
    ) -> Configured[P, R]: ...
    @overload
    @classmethod
    def set(
        cls: type[Performs[P, R]],
        *,
        wait_until: datetime,
        queue: str = ...,
        priority: int = ...,
        connection: object = ...,
    ) -> Configured[P, R]: ...
    @classmethod
    def set(cls, **options: Any) -> Any:
        """Return the job with options for this one enqueue.

        Args:
            **options: ``wait``, seconds or a timedelta from now; or ``wait_until``, an aware datetime; ``queue`` and
                ``priority`` instead of the class's; ``connection``, a session or connection whose transaction the
                job is part of.

        Raises:
            InvalidOptions: they cannot be meant.
        """
        return Configured(cls, Options(**options))

    # --- to override --------------------------------------------------------------------------------------------------

    def backoff(self, attempt: int) -> float:
        """Return the seconds to wait after try number ``attempt`` has failed. Override it for another curve."""
        return backoff.polynomial(attempt)

    # --- for executors and tools --------------------------------------------------------------------------------------

    @classmethod
    def serving_app(cls) -> Sapwood:
        """Return the app that the class belongs to: the one that it names, or the one made last."""
        return cls.app if cls.app is not None else current_app()

    @classmethod
    def check_adapter(cls, app: Sapwood) -> None:
        """See that what the class asks for can be had where its jobs are kept.

        Raises:
            ConfigurationError: it cannot.
        """
        if cls.transactional and cls.can_perform() and cls.adapter in app.adapters:
            transacting.check(cls, app.adapter(cls.adapter))

    @classmethod
    def check_driver(cls, app: Sapwood) -> None:
        """See that a transactional coroutine has an asynchronous driver, in a place that knows transactions at all.

        Of any other place, such as one for tests, it is said when a job is to be kept there.

        Raises:
            ConfigurationError: it has none.
        """
        adapter = app.adapters.get(cls.adapter)
        if adapter is not None and "transaction" in adapter.capabilities:
            cls.check_adapter(app)

    @classmethod
    def app_or_none(cls) -> Sapwood | None:
        """Return the app that the class belongs to, None where there is none: a job may run inline without."""
        try:
            return cls.serving_app()
        except NoApp:
            return None

    @classmethod
    def stored_name(cls) -> str:
        """Return the name under which its jobs are stored."""
        name: str | None = cls.__dict__.get("name")
        return name if name is not None else registry.stored_name(cls)

    @classmethod
    def can_perform(cls) -> bool:
        """Say whether it has a ``perform`` that is written."""
        perform = getattr(cls, "perform", None)
        return perform is not None and not getattr(perform, "__isabstractmethod__", False)

    @classmethod
    def codec(cls) -> Codec:
        """Return how the arguments of its ``perform`` travel."""
        codec: Codec | None = cls.__dict__.get("_codec")
        if codec is None:
            bound = isinstance(inspect.getattr_static(cls, "perform"), staticmethod | classmethod)
            codec = Codec(cls.perform, skip=0 if bound else 1)  # type: ignore[attr-defined]
            cls._codec = codec
        return codec


def enqueue_all(jobs: Iterable[PendingJob[Any]]) -> list[JobHandle[Any]]:
    """Store many jobs, in one round trip for each adapter; return their handles in the same order."""
    return _stored(_distinct(jobs))


async def aenqueue_all(jobs: Iterable[PendingJob[Any]]) -> list[JobHandle[Any]]:
    """Store many jobs, from asynchronous code."""
    pending = _distinct(jobs)
    handles: dict[int, JobHandle[Any]] = {}
    for connection, members in _grouped(pending, _joined).values():
        if _is_async(connection):

            def store(sync: object, members: list[PendingJob[Any]] = members) -> list[JobHandle[Any]]:
                return _stored(members, connection=sync)

            stored = await connection.run_sync(store)
        elif connection is not None:
            # It belongs to the caller's thread, and so does its transaction.
            stored = _stored(members)
        else:
            stored = await asyncio.to_thread(_stored, members)
        handles.update(zip(map(id, members), stored, strict=True))
    return [handles[id(job)] for job in pending]


class FunctionJob(Generic[P, R]):
    """A function as a job. A call stays a call."""

    def __init__(self, function: Callable[..., R], job_class: type[Job], *, with_context: bool) -> None:
        functools.update_wrapper(self, function)
        self.job_class = job_class
        self._function = function
        self._with_context = with_context

    def __repr__(self) -> str:
        return f"<job {self.job_class.stored_name()}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now, with nothing in between."""
        return self._function(JobContext(), *args, **kwargs) if self._with_context else self._function(*args, **kwargs)

    def perform_now(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Perform the job here and now, as :meth:`Job.perform_now` does."""
        return self._configured().perform_now(*args, **kwargs)

    def perform_later(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store the job; a worker performs it as soon as it can."""
        return self._configured().perform_later(*args, **kwargs)

    async def aperform_later(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store the job, from asynchronous code."""
        return await self._configured().aperform_later(*args, **kwargs)

    def build(self, *args: P.args, **kwargs: P.kwargs) -> PendingJob[R]:
        """Return the job with its arguments, for :func:`enqueue_all`."""
        return self._configured().build(*args, **kwargs)

    @overload
    def set(
        self, *, wait: float | timedelta = ..., queue: str = ..., priority: int = ..., connection: object = ...
    ) -> Configured[P, R]: ...
    @overload
    def set(
        self, *, wait_until: datetime, queue: str = ..., priority: int = ..., connection: object = ...
    ) -> Configured[P, R]: ...
    def set(self, **options: Any) -> Any:
        """Return the job with options for this one enqueue, as :meth:`Job.set` does."""
        return Configured(self.job_class, Options(**options))

    def _configured(self) -> Configured[P, R]:
        return Configured(self.job_class, Options())


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> FunctionJob[P, R]: ...


class _ContextDecorator(Protocol):
    def __call__(self, function: Callable[Concatenate[JobContext, P], R], /) -> FunctionJob[P, R]: ...


@overload
def job(function: Callable[P, R], /) -> FunctionJob[P, R]: ...
@overload
def job(
    *,
    with_context: Literal[True],
    queue: str = ...,
    priority: int = ...,
    max_attempts: int = ...,
    adapter: str = ...,
    keep: bool = ...,
    app: Sapwood = ...,
    name: str = ...,
    aliases: Sequence[str] = ...,
    logger: Any = ...,
    max_runtime: float | timedelta = ...,
    isolated: bool = ...,
    memory_limit: int = ...,
    transactional: bool = ...,
    delivery: Delivery = ...,
) -> _ContextDecorator: ...
@overload
def job(
    *,
    with_context: Literal[False] = False,
    queue: str = ...,
    priority: int = ...,
    max_attempts: int = ...,
    adapter: str = ...,
    keep: bool = ...,
    app: Sapwood = ...,
    name: str = ...,
    aliases: Sequence[str] = ...,
    logger: Any = ...,
    max_runtime: float | timedelta = ...,
    isolated: bool = ...,
    memory_limit: int = ...,
    transactional: bool = ...,
    delivery: Delivery = ...,
) -> _Decorator: ...
def job(function: Any = None, /, *, with_context: bool = False, **options: Any) -> Any:
    """Make a job of a function.

    Args:
        function: it, where the decorator is used without parentheses.
        with_context: pass the :class:`JobContext` as its first argument.
        options: the class keywords of :class:`Job`.
    """
    if function is None:
        return lambda function: job(function, with_context=with_context, **options)  # type: ignore[call-overload]
    namespace = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "perform": _performing(function) if with_context else staticmethod(function),
        "_codec": Codec(function, skip=1 if with_context else 0),
    }
    job_class = types.new_class(function.__name__, (Job,), options, lambda filled: filled.update(namespace))
    return FunctionJob(function, job_class, with_context=with_context)


def _performing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``perform`` that passes its job's context on."""
    if inspect.iscoroutinefunction(function):

        async def aperform(self: Job, *args: Any, **kwargs: Any) -> Any:
            return await function(self.context, *args, **kwargs)

        return aperform

    def perform(self: Job, *args: Any, **kwargs: Any) -> Any:
        return function(self.context, *args, **kwargs)

    return perform


# --- inline -----------------------------------------------------------------------------------------------------------


def _performed_now(job_class: type[Job], options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not job_class.can_perform():
        raise MissingPerform(f"{job_class.__qualname__} has no perform()", mend="add it: def perform(self, ...)")
    encoded = job_class.codec().encode(args, kwargs)
    context = JobContext(
        job=job_class.__qualname__,
        queue=options.queue or job_class.queue,
        priority=options.priority or job_class.priority,
        max_attempts=job_class.max_attempts,
    )
    if job_class.transactional:
        app = job_class.serving_app()
        transacted = transacting.transacted_inline(app, job_class, options.connection)
        return (_atransacted if is_async(job_class) else _transacted)(job_class, encoded, context, app, transacted)
    return (aperform if is_async(job_class) else perform)(job_class, encoded, context, job_class.app_or_none())


def _transacted(job_class: type[Job], args: str, context: JobContext, app: Sapwood, work: Transacted) -> Any:
    with work.running():
        try:
            value = perform(job_class, args, within(context, work), app)
            work.settle(Succeeded())
        finally:
            work.transaction.rollback()
    return value


async def _atransacted(job_class: type[Job], args: str, context: JobContext, app: Sapwood, work: Transacted) -> Any:
    with work.running():
        try:
            value = await aperform(job_class, args, within(context, work), app)
            await work.asettle(Succeeded())
        finally:
            await work.transaction.arollback()
    return value


# --- storing ----------------------------------------------------------------------------------------------------------


def _configured(job_class: Any) -> Configured[Any, Any]:
    return Configured(job_class, Options())


def _distinct(jobs: Iterable[PendingJob[Any]]) -> list[PendingJob[Any]]:
    """Return the jobs; one that is listed twice is two jobs, each with a handle of its own."""
    pending: list[Any] = list(jobs)
    for job in pending:
        if not isinstance(job, PendingJob):
            raise TypeError(f"enqueue_all takes what .build(...) returns, not {job!r}")
    return [copy.copy(job) for job in pending]


def _stored(jobs: list[PendingJob[Any]], *, connection: object | None = None) -> list[JobHandle[Any]]:
    handles: dict[int, JobHandle[Any]] = {}
    for target, members in _grouped(jobs, lambda job: _joined(job) if connection is None else connection).values():
        if _is_async(target):
            raise UnsupportedConnection(
                f"an {type(target).__name__} cannot be used from synchronous code",
                mend="await .aperform_later(...), or aenqueue_all([...])",
            )
        first = members[0]
        ids = first.app.enqueue([job.draft for job in members], adapter=first.job_class.adapter, connection=target)
        adapter = first.app.adapter(first.job_class.adapter)
        for job, number in zip(members, ids, strict=True):
            handles[id(job)] = JobHandle(number, adapter, job.job_class.codec())
    return [handles[id(job)] for job in jobs]


def _grouped(
    jobs: Iterable[PendingJob[Any]], connection_of: Callable[[PendingJob[Any]], Any]
) -> dict[tuple[int, str, int], tuple[Any, list[PendingJob[Any]]]]:
    """Put together what goes to one adapter on one connection."""
    groups: dict[tuple[int, str, int], tuple[Any, list[PendingJob[Any]]]] = {}
    for job in jobs:
        connection = connection_of(job)
        key = (id(job.app), job.job_class.adapter, id(connection))
        groups.setdefault(key, (connection, []))[1].append(job)
    return groups


def _joined(job: PendingJob[Any]) -> Any:
    return job.connection if job.connection is not None else job.app.joined(job.job_class.adapter)


def _is_async(connection: object) -> bool:
    """Say whether it is an AsyncSession or AsyncConnection, without importing what defines them."""
    return hasattr(connection, "run_sync")


_KINDS: Mapping[str, tuple[type[Any], ...]] = {
    "adapter": (str,),
    "keep": (bool,),
    "isolated": (bool,),
    "transactional": (bool,),
    "app": (Sapwood, types.NoneType),
    "aliases": (Sequence,),
}
"""What the options of a class may be that are checked for nothing else."""


def _take_logger(job_class: type[Job]) -> None:
    """Keep the logger that a class declares apart: the attribute of that name stays what makes a run's own of it."""
    declared = job_class.__dict__.get("logger", _LoggerOfRun())
    # A property of that name is the class's own way to make one.
    if not hasattr(type(declared), "__get__"):
        del job_class.logger
        job_class.logger_of_class = declared


def _register(job_class: type[Job]) -> None:
    names = list(job_class.__dict__.get("aliases", ()))
    # Said when it is enqueued: a class inside a function may well be run inline only.
    with suppress(UnnamedJob):
        stored_name = job_class.stored_name()
        check_job(stored_name)
        names.insert(0, stored_name)
    registry.register(job_class, names)


def _check_class(job_class: type[Job]) -> None:
    written = inspect.unwrap(getattr(job_class, "perform", _check_class))
    if inspect.isgeneratorfunction(written) or inspect.isasyncgenfunction(written):
        raise ConfigurationError(
            f"perform of {job_class.__qualname__} is a generator",
            why="calling it would do nothing",
            mend="take out the yield",
        )
    check_queue(job_class.queue)
    check_priority(job_class.priority)
    if type(job_class.max_attempts) is not int or job_class.max_attempts < 1:
        raise ConfigurationError(
            f"max_attempts of {job_class.__qualname__} is {job_class.max_attempts!r}", mend="an integer, 1 or more"
        )
    run_time(job_class.max_runtime, f"max_runtime of {job_class.__qualname__}")
    _check_memory(job_class)
    for attribute, kinds in _KINDS.items():
        value = getattr(job_class, attribute)
        if not isinstance(value, kinds):
            raise ConfigurationError(
                f"{attribute} of {job_class.__qualname__} is {value!r}", mend=f"it must be a {kinds[0].__name__}"
            )
    _check_delivery(job_class)
    if isinstance(job_class.aliases, str):
        raise ConfigurationError(
            f"aliases of {job_class.__qualname__} is {job_class.aliases!r}", mend='a list of names: ["shop.old"]'
        )
    if job_class.name is not None:
        check_job(job_class.name)
    for alias in job_class.aliases:
        check_job(alias)


def _check_memory(job_class: type[Job]) -> None:
    limit = job_class.memory_limit
    if limit is None:
        return
    said = f"memory_limit of {job_class.__qualname__} is {limit!r}"
    if type(limit) is not int or limit < _LEAST_MEMORY:
        raise ConfigurationError(said, mend=f"bytes, {_LEAST_MEMORY} or more: an interpreter takes that by itself")
    if not job_class.isolated:
        raise ConfigurationError(
            said, why="only a process of its own can be limited", mend=f"class {job_class.__name__}(Job, isolated=True)"
        )


def _check_delivery(job_class: type[Job]) -> None:
    delivery: Any = job_class.delivery
    known = get_args(Delivery)
    if delivery not in known:
        close = difflib.get_close_matches(str(delivery), known, n=1)
        raise ConfigurationError(
            f"delivery of {job_class.__qualname__} is {delivery!r}",
            why=f"it is one of {' and '.join(map(repr, known))}",
            mend=f"did you mean {close[0]!r}?" if close else "",
        )
    if job_class.transactional and delivery == "at_most_once":
        raise ConfigurationError(
            f"{job_class.__qualname__} is transactional and to be run at most once",
            why="what it does in its transaction happens exactly once already, however often it is begun",
            mend="take one of the two away; what must not be repeated outside of the database is a job of its own",
        )
