"""Calling ``perform``: with stored arguments, inside the app's middleware."""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, nullcontext
from typing import Any

from sapwood.app import Sapwood
from sapwood.context import JobContext
from sapwood.errors import ConfigurationError
from sapwood.forks import InOneProcess, OneProcess
from sapwood.limit import Limit

JobClass = type[Any]
"""A subclass of :class:`sapwood.Job`, which stands above this module."""


def is_async(job_class: JobClass) -> bool:
    """Say whether the ``perform`` of a class is a coroutine function."""
    known: bool | None = job_class.__dict__.get("runs_async")
    if known is None:
        known = job_class.runs_async = inspect.iscoroutinefunction(inspect.unwrap(job_class.perform))
    return known


def perform(
    job_class: JobClass, args: str, context: JobContext, app: Sapwood | None, limit: Limit | None = None
) -> Any:
    """Call a synchronous ``perform`` with stored arguments, inside the app's middleware, in its time."""
    call = _bound(job_class, args, context, app)
    with ExitStack() as wrapped:
        for middleware in _middleware(app):
            wrapped.enter_context(_synchronous(middleware(context)))
        with OneProcess() if context.job_id else nullcontext():
            value = call() if limit is None else limit.call(call)
        return _finished(job_class, value)
    return None  # a middleware swallowed what perform raised


async def aperform(
    job_class: JobClass, args: str, context: JobContext, app: Sapwood | None, limit: Limit | None = None
) -> Any:
    """Await an asynchronous ``perform`` with stored arguments, inside the app's middleware, in its time."""
    call = _bound(job_class, args, context, app)
    async with AsyncExitStack() as wrapped:
        for middleware in _middleware(app):
            manager = middleware(context)
            if hasattr(manager, "__aenter__"):
                await wrapped.enter_async_context(manager)
            else:
                wrapped.enter_context(manager)
        run = call() if limit is None else limit.acall(call)
        return await (InOneProcess(run) if context.job_id else run)


def _bound(job_class: JobClass, args: str, context: JobContext, app: Sapwood | None) -> Callable[[], Any]:
    positional, named = job_class.codec().decode(args)
    instance = job_class()
    # A frozen attrs class takes attributes only this way.
    object.__setattr__(instance, "context", context)
    object.__setattr__(instance, "app_of_run", app)
    return functools.partial(instance.perform, *positional, **named)


def _middleware(app: Sapwood | None) -> Sequence[Callable[[JobContext], Any]]:
    return app.middleware if app is not None else ()


def _finished(job_class: JobClass, value: Any) -> Any:
    """Refuse a coroutine that nobody would await: the job would count as done, and nothing would have been done."""
    if inspect.iscoroutine(value):
        value.close()
        raise ConfigurationError(
            f"perform of {job_class.__qualname__} returned a coroutine",
            why="a decorator hides that it is asynchronous",
            mend="use functools.wraps in the decorator, or write async def perform",
        )
    return value


def _synchronous(manager: Any) -> Any:
    if hasattr(manager, "__enter__"):
        return manager
    if inspect.iscoroutine(manager):
        manager.close()
    raise ConfigurationError(
        f"a middleware returned a {type(manager).__name__} for a synchronous job",
        why="only a context manager can be entered around it",
        mend="decorate the middleware with @contextmanager",
    )
