"""A process that a job has forked ends where it would come back from the job.

It is a copy of the worker: it would write on the same page, run the same other jobs, and speak over the same
connections.
"""

import os
import sys
import traceback
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, NoReturn


class OneProcess:
    """Lets nobody out of the block but the process that went in."""

    def __enter__(self) -> None:
        self._process = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._process:
            _end(error)


class InOneProcess:
    """Awaits a coroutine; a process that it has forked ends where it would wait, or return.

    Where it would wait, a copy of the event loop would go on with the coroutines of all other jobs.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        """Pass on step by step what the coroutine and its event loop say to each other."""
        step, given = self._coroutine.send, None
        while True:
            with OneProcess():
                try:
                    awaited = step(given)
                except StopIteration as returned:
                    return returned.value
            try:
                given = yield awaited
                step = self._coroutine.send
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
                step, given = self._coroutine.throw, error


def _end(error: BaseException | None) -> NoReturn:
    """End this process as a program ends."""
    code = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit):
            code = error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)
