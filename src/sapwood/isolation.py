"""Running a job in a process of its own, which can be ended for certain: the worker's side of it."""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_args

import msgspec
from msgspec import Struct

from sapwood import registry
from sapwood.app import Sapwood
from sapwood.errors import ConfigurationError
from sapwood.events import JobEnded, JobStarted
from sapwood.executor import Executor, failure_of, timed_out
from sapwood.host import Child, ending, environment_of_job
from sapwood.lifecycle import Failure, Outcome, Released, Unrecognised
from sapwood.page import Claim
from sapwood.record import JobRecord
from sapwood.wording import storable

# Without the current directory on the path: no file of the project may hide a module of ours.
_COMMAND = (sys.executable, "-P", "-m", "sapwood.cli.isolated")

_START = 120.0
"""Seconds that a process may take until it has loaded the application."""

_LOOK = 0.1

# --- what the two say to each other: lines of JSON --------------------------------------------------------------------


class Task(Struct, tag=True, frozen=True, kw_only=True):
    """To the process: what to run, and how."""

    record: JobRecord
    app: str
    adapter: str
    """Where the job is kept."""

    path: Sequence[str]
    """Where modules are found."""

    parent: int
    seconds: float | None
    memory: int | None
    level: int
    """That of the app's logger."""

    root_level: int


class Begun(Struct, tag=True, frozen=True):
    """From the process: the application is loaded, the job begins."""


class Over(Struct, tag=True, frozen=True):
    """From the process: ``perform`` is over; what follows, such as a commit, is not limited."""


class Logged(Struct, tag=True, frozen=True):
    """From the process: a log line, for whoever shows those of the worker."""

    fields: Mapping[str, Any]


class Unusable(Struct, tag=True, frozen=True):
    """From the process: the application cannot be loaded here."""

    why: str


class Done(Struct, tag=True, frozen=True):
    """From the process: what came of the job."""

    kind: str
    outcome: msgspec.Raw

    @staticmethod
    def of(outcome: Outcome) -> "Done":
        """Return how an outcome travels."""
        return Done(type(outcome).__name__, msgspec.Raw(msgspec.json.encode(outcome)))

    def read(self) -> Outcome:
        """Return the outcome."""
        kinds = {kind.__name__: kind for kind in get_args(Outcome)}
        outcome: Outcome = msgspec.json.decode(self.outcome, type=kinds[self.kind])
        return outcome


Message = Begun | Over | Logged | Unusable | Done

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)

# --- the worker's side ------------------------------------------------------------------------------------------------


class Isolation:
    """Runs isolated jobs, each in the thread that calls :meth:`run`.

    Args:
        app: the application, which the processes load too.
        executor: judges what cannot be judged by the process itself.
        adapter: the name of the adapter that the jobs come from.
        grace: seconds that a job may take to end once its time is over.
        stopping: whether the worker wants to stop.
    """

    def __init__(
        self, app: Sapwood, executor: Executor, *, adapter: str, grace: float, stopping: Callable[[], bool]
    ) -> None:
        self._app = app
        self._executor = executor
        self._adapter = adapter
        self._grace = grace
        self._stopping = stopping
        self._directory = os.getcwd()  # noqa: PTH109 - a string, for another process
        self._reference: str | None = None
        self._cuts = 0
        # Changed by single operations that the interpreter does not interrupt: a signal handler may end them all.
        self._processes: dict[Claim, _Process | None] = {}

    @property
    def running(self) -> int:
        """How many of its jobs run."""
        return len(self._processes)

    def end(self) -> None:
        """End all processes now, for certain: their jobs are given back, once they are dead."""
        self._cuts += 1
        for process in list(self._processes.values()):
            if process is not None:
                process.kill()

    def run(self, record: JobRecord) -> Outcome:
        """Run a job to its end, whichever that is, and return its outcome."""
        self._app.events.emit(JobStarted(record))
        began = time.perf_counter()
        cuts = self._cuts
        self._processes[record.claim] = None
        try:
            outcome = self._outcome(record, cuts)
        except Exception as error:  # noqa: BLE001 - no process can be started, or it said what nobody understands
            outcome = self._executor.failed(record, failure_of(error))
        finally:
            del self._processes[record.claim]
        self._app.events.emit(JobEnded(record, outcome, time.perf_counter() - began))
        return outcome

    def _outcome(self, record: JobRecord, cuts: int) -> Outcome:
        task = self._task(record)
        process = _Process(task, self._directory, self._grace)
        self._processes[record.claim] = process
        try:
            said = process.follow(self._stopping, lambda: self._cuts != cuts)
        finally:
            code = process.end(well=isinstance(process.said, Done))
        if isinstance(said, Done):
            outcome = said.read()
            if not isinstance(outcome, Unrecognised):
                return outcome
            why = "a new process does not load its class: name the module in Sapwood(imports=[...])"
        elif isinstance(said, Unusable):
            why = storable(f"its process cannot load the application: {said.why}")
        elif self._cuts != cuts:
            return Released()
        elif process.is_late:
            why = timed_out(task.seconds) if process.has_begun else f"its process did not begin within {_START:g} s"
        else:
            why = f"its process ended with no outcome: {ending(code)}"
        return self._executor.failed(record, Failure(why))

    def _task(self, record: JobRecord) -> Task:
        store = self._app.adapter(self._adapter)
        if store.is_volatile:
            raise ConfigurationError(
                f"an isolated job cannot run: {store.describe()} ends with this process",
                why="its own process would find another store, and what it enqueues would be lost",
                mend="keep its jobs in a file or on a server",
            )
        job_class = registry.find(record.job)
        logger = self._app.logger
        root = logging.getLogger()
        self._reference = self._reference or reference_to(self._app)
        return Task(
            record=record,
            app=self._reference,
            adapter=self._adapter,
            path=[entry or self._directory for entry in sys.path],
            parent=os.getpid(),
            seconds=self._executor.run_time(record),
            memory=None if job_class is None else job_class.memory_limit,
            level=logger.getEffectiveLevel() if isinstance(logger, logging.Logger) else logging.NOTSET,
            root_level=root.level,
        )


def reference_to(app: Sapwood) -> str:
    """Return how another process finds an app: ``module:attribute``.

    Raises:
        ConfigurationError: it cannot.
    """
    if app.reference is not None:
        return app.reference
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app and name.partition(".")[0] not in {"__main__", "sapwood"}:
                return f"{name}:{attribute}"
    raise ConfigurationError(
        "an isolated job cannot run: a new process would not find its app",
        why="the app is made in the script that runs, or inside a function",
        mend="make it in a module of its own, as a name of that module, and import it from there",
    )


class _Process:
    """The process of one run."""

    def __init__(self, task: Task, directory: str, grace: float) -> None:
        self._seconds = task.seconds
        self._grace = grace
        self._read = b""
        self.said: Message | None = None
        self.has_begun = False
        self.is_late = False
        self._deadline: float | None = time.monotonic() + _START
        self._end, theirs = socket.socketpair()
        # Not select(), which knows no descriptor beyond 1,023.
        self._poll = select.poll()
        self._poll.register(self._end, select.POLLIN)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._process = Child(
                [*_COMMAND, str(theirs.fileno())],
                cwd=directory,
                env=environment_of_job(),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # A group of its own: what it starts is ended with it.
                process_group=0,
            )
        with suppress(OSError):  # it is gone already, and will be found so
            self._end.sendall(msgspec.json.encode(task) + b"\n")

    def follow(self, stopping: Callable[[], bool], cut: Callable[[], bool]) -> Message | None:
        """Return its last word; None where it ended without, had its time, or was cut."""
        hears = True
        told = False
        while self.said is None and not cut():
            # While it begins, it would take this for a part of what it is told first.
            if self.has_begun and not told and stopping():
                told = True
                with suppress(OSError):
                    self._end.send(b"\n")
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self.is_late = True
                return None
            # What it has said is heard to the end, also when it has ended.
            ended = self._process.has_ended()
            if hears:
                hears = self._hear(0 if ended else self._rest())
            elif not ended:
                # It closed its end, and lives: its code has closed what it could.
                time.sleep(_LOOK / 10)
            if ended and not self._has_more():
                break
        return self.said

    def kill(self) -> None:
        """End it and what it started, for certain."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def end(self, *, well: bool) -> int:
        """See that it is gone, with all it started, and return its exit code. One that did well may end by itself."""
        patience = time.monotonic() + (self._grace if well else 0)
        while time.monotonic() < patience and not self._process.has_ended():
            time.sleep(0.002)
        # Before it is waited for: until then nobody else can have its number.
        self.kill()
        self._end.close()
        return self._process.wait()

    def _rest(self) -> float:
        return _LOOK if self._deadline is None else min(_LOOK, max(0.0, self._deadline - time.monotonic()))

    def _has_more(self) -> bool:
        try:
            return bool(self._end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _hear(self, seconds: float) -> bool:
        """Take in what it says; False where its end is closed."""
        if not self._poll.poll(seconds * 1000):
            return True
        try:
            data = self._end.recv(65_536)
        except OSError:
            return False
        *lines, self._read = (self._read + data).split(b"\n")
        for line in lines:
            with suppress(msgspec.DecodeError):  # a process that it forked may have spoken at the same time
                self._take(_decoder.decode(line))
        return bool(data)

    def _take(self, message: Message) -> None:
        match message:
            case Begun():
                self.has_begun = True
                self._deadline = None if self._seconds is None else time.monotonic() + self._seconds + self._grace
            case Over():
                self._deadline = None
            case Logged(fields):
                logger = logging.getLogger(str(fields.get("name", "")))
                line = logging.makeLogRecord(dict(fields))
                if logger.isEnabledFor(line.levelno):
                    logger.handle(line)
            case Unusable() | Done():
                self.said = message
