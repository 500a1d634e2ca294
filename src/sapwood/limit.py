"""How long a run of ``perform`` may take, and how it hears that its time is over."""

import asyncio
import ctypes
import os
import signal
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

from sapwood.errors import JobTimeout


class Limit:
    """The time of one run. An asynchronous one is cancelled; a synchronous one hears of it by a subclass, or never.

    Args:
        seconds: how long it may take, None for ever.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.expired = False
        """It was asked to end: whatever it raises is a time-out."""

        self.is_stuck = False
        """It did not end when it was asked to: even its return is a time-out."""

        self.over: Callable[[], None] = lambda: None
        """Called when ``perform`` is over: what follows, such as a commit, is not limited."""

    def ask(self) -> None:
        """Ask the run to end. Called from another thread when its time is over."""

    def call(self, perform: Callable[[], Any]) -> Any:
        """Call a synchronous ``perform``."""
        process = os.getpid()
        try:
            value = self._called(perform)
        finally:
            self._is_over_in(process)
        self._refuse_stuck()
        return value

    async def acall(self, perform: Callable[[], Awaitable[Any]]) -> Any:
        """Await an asynchronous ``perform``, and cancel it when its time is over."""
        if self.seconds is None:
            return await perform()
        process = os.getpid()
        scope = asyncio.timeout(self.seconds)
        try:
            async with scope:
                value = await perform()
        finally:
            # Only our own cancellation counts: a job that is cancelled by somebody else has simply failed.
            self.expired = self.expired or scope.expired()
            self._is_over_in(process)
        self._refuse_stuck()
        return value

    def _is_over_in(self, process: int) -> None:
        # In a copy that the job has forked it is not: there it goes on in the process that it came from.
        if os.getpid() == process:
            self.over()

    def _called(self, perform: Callable[[], Any]) -> Any:
        return perform()

    def _refuse_stuck(self) -> None:
        if self.is_stuck:
            raise JobTimeout


class _Interrupting(Limit):
    """Raises :class:`JobTimeout` inside the run: at most once, and in nothing but ``perform``."""

    @abstractmethod
    def _arm(self) -> None:
        """Let it be raised from now on."""

    @abstractmethod
    def _disarm(self) -> None:
        """Let it be raised no more, and take back one that is under way."""

    def _called(self, perform: Callable[[], Any]) -> Any:
        value, returned = None, False
        error: BaseException | None = None
        try:
            try:
                self._arm()
                value = perform()
                returned = True
            except BaseException as raised:  # noqa: BLE001 - raised again below, once nothing can arrive any more
                error = raised
            self._disarm()
        except JobTimeout as late:
            # It came after perform was over, and there is but one: what came of perform stands.
            self._disarm()
            error = late if error is None and not returned else error
        try:
            if error is not None:
                raise error
        finally:
            # Its traceback holds this frame.
            error = None
        return value


class ThreadLimit(_Interrupting):
    """For a run in any thread: it is raised between two instructions of Python, so not while the thread sleeps in C."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_over = False

    def ask(self) -> None:
        """Raise it in the thread, if that is still in ``perform``."""
        with self._lock:
            if self._is_over or self.expired:
                return
            self.expired = True
            if self._thread is not None:
                _raise_in(self._thread, ctypes.py_object(JobTimeout))

    def _arm(self) -> None:
        with self._lock:
            if self.expired:
                raise JobTimeout
            self._thread = threading.get_ident()

    def _disarm(self) -> None:
        with self._lock:
            self._is_over = True
            if self.expired and self._thread is not None:
                _raise_in(self._thread, None)


def _raise_in(thread: int, what: Any) -> None:
    """Have a thread raise an exception, soon; None takes back one that it has not yet raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


class AlarmLimit(_Interrupting):
    """For a run in the main thread of a process of its own: a signal also ends a sleep, and most waiting in C."""

    _is_armed = False

    def _arm(self) -> None:
        if self.seconds is not None:
            self._is_armed = True
            signal.signal(signal.SIGALRM, self._rung)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def _disarm(self) -> None:
        self._is_armed = False
        if self.seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _rung(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._is_armed and not self.expired:
            self.expired = True
            raise JobTimeout
