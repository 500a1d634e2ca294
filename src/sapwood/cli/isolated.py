"""The process of one isolated job: ``python -m sapwood.cli.isolated DESCRIPTOR``. Nobody calls it by hand."""

import logging
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import setproctitle
from msgspec.structs import replace

from sapwood import config
from sapwood.app import Sapwood
from sapwood.cli.discovery import find
from sapwood.errors import SapwoodError
from sapwood.events import Events
from sapwood.executor import Executor
from sapwood.host import die_with_parent
from sapwood.isolation import Begun, Done, Logged, Message, Over, Task, Unusable
from sapwood.lifecycle import Failed, Outcome, Retried
from sapwood.limit import AlarmLimit
from sapwood.wording import escaped, in_a_line

_TOLD = ("job_id", "job", "queue", "attempt")


def main(descriptor: int) -> None:
    """Run the job that the other end names, and say what came of it."""
    end = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    task = _received(end)
    if task is None:
        return
    die_with_parent(task.parent)
    # It would write over the environment, by which what this process starts is known.
    os.environ["SPT_NOENV"] = "1"
    setproctitle.setproctitle(f"sapwood job {escaped(task.record.job)} #{task.record.id}")
    del os.environ["SPT_NOENV"]
    sys.path[:] = task.path
    try:
        app = _loaded(task)
    except SapwoodError as error:
        _send(end, Unusable(in_a_line(error)))
        return
    _tell_logs(end, task, app)
    _send(end, Begun())
    # The worker tells of start and end: here nobody listens.
    executor = Executor(app, events=Events(), adapter=task.adapter)
    limit = _Limits(task.seconds, task.memory)
    limit.over = lambda: _send(end, Over())
    outcome = executor.execute(task.record, stopping=lambda: _has_word(end), limit=limit)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the job may have closed it
            stream.flush()
    _send(end, Done.of(_explained(outcome, task.memory)))


def _received(end: socket.socket) -> Task | None:
    read = b""
    while not read.endswith(b"\n"):
        data = end.recv(65_536)
        if not data:
            return None
        read += data
    return msgspec.json.decode(read, type=Task)


def _has_word(end: socket.socket) -> bool:
    try:
        end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True


def _send(end: socket.socket, message: Message) -> None:
    end.sendall(msgspec.json.encode(message) + b"\n")


def _loaded(task: Task) -> Sapwood:
    project = find(config.read(Path.cwd()), task.app)
    project.load()
    project.app.reference = task.app
    return project.app


class _Limits(AlarmLimit):
    """The limits of time and memory, for the one run of this process."""

    def __init__(self, seconds: float | None, memory: int | None) -> None:
        super().__init__(seconds)
        self._memory = memory

    def call(self, perform: Callable[[], Any]) -> Any:
        """Call it, with no more memory than it may have."""
        with _limited(self._memory):
            return super().call(perform)

    async def acall(self, perform: Callable[[], Awaitable[Any]]) -> Any:
        """Await it, with no more memory than it may have."""
        with _limited(self._memory):
            return await super().acall(perform)


@contextmanager
def _limited(memory: int | None) -> Iterator[None]:
    """Let no more memory be had, until the end: what came of the job must still be said."""
    if memory is None:
        yield
        return
    # What is written to and not shared: libraries, which are merely mapped, and reserved addresses do not count.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    before, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (memory if most == resource.RLIM_INFINITY else min(memory, most), most))
    try:
        yield
    finally:
        resource.setrlimit(kind, (before, most))


def _explained(outcome: Outcome, memory: int | None) -> Outcome:
    if memory is None or not isinstance(outcome, Retried | Failed):
        return outcome
    if not outcome.failure.error.startswith("MemoryError"):
        return outcome
    return replace(outcome, failure=replace(outcome.failure, error=f"MemoryError: beyond {memory} bytes, its limit"))


def _tell_logs(end: socket.socket, task: Task, app: Sapwood) -> None:
    """Have log lines shown where the worker's are, unless the application has seen to that itself."""
    root = logging.getLogger()
    if isinstance(app.logger, logging.Logger) and not app.logger.hasHandlers():
        app.logger.setLevel(task.level)
    if not root.handlers:
        root.setLevel(task.root_level)
        root.addHandler(_Forward(end))


class _Forward(logging.Handler):
    """Sends log lines to the worker."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__()
        self._end = end
        self._form = logging.Formatter("%(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line, unless a handler of the application has it."""
        if _is_handled(logging.getLogger(record.name)):
            return
        fields = {
            "name": record.name,
            "levelno": record.levelno,
            "levelname": record.levelname,
            "created": record.created,
            "msecs": record.msecs,
            "pathname": record.pathname,
            "filename": record.filename,
            "module": record.module,
            "lineno": record.lineno,
            "funcName": record.funcName,
            "process": record.process,
            "msg": self._form.format(record),
        }
        fields |= {name: getattr(record, name) for name in _TOLD if hasattr(record, name)}
        with suppress(OSError):
            _send(self._end, Logged(fields))


def _is_handled(logger: logging.Logger | None) -> bool:
    while logger is not None and logger.parent is not None:
        if logger.handlers:
            return True
        logger = logger.parent if logger.propagate else None
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
