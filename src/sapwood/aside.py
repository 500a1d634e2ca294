"""Waiting beside the event loop: for what blocks, in threads of our own, and to its end whatever is cancelled."""

import asyncio
import contextvars
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MOST_THREADS = 256
"""They are started as they are needed: as many as jobs wait at once."""


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="sapwood-aside")


# A forked child has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)


def aside(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
    """Call a function in a thread. Not in those of the event loop, which jobs need while others wait, or close.

    No task, which a job that cancels all tasks would find.
    """
    own = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_threads(), lambda: own.run(function, *args, **kwargs))


async def uninterrupted(work: Awaitable[_T]) -> _T:
    """Await something to its end, whatever is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
        except BaseException:  # noqa: BLE001 - told below
            break
    return task.result()
