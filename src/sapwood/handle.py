"""What ``perform_later`` returns: a job that is stored, seen from the application."""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Generic, TypeVar, overload

from sapwood.adapters.base import BaseAdapter
from sapwood.arguments import Codec
from sapwood.errors import JobFailed, ResultTimeout, ResultUnavailable
from sapwood.record import JobRecord, JobState

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_FIRST_LOOK, _LONGEST_PAUSE = 0.005, 0.25


class JobHandle(Generic[R_co]):
    """A stored job: its id, where it stands, and what it returned."""

    def __init__(self, id: int, adapter: BaseAdapter, codec: Codec) -> None:
        self.id = id
        self._adapter = adapter
        self._codec = codec

    def __repr__(self) -> str:
        return f"<JobHandle #{self.id}>"

    @property
    def record(self) -> JobRecord | None:
        """The row as it is now, None where success has deleted it, or before the commit."""
        return self._adapter.get(self.id)

    @property
    def state(self) -> JobState | None:
        """Where the job stands, None where its row is gone."""
        record = self.record
        return None if record is None else record.state

    @overload
    def result(self: "JobHandle[Coroutine[Any, Any, T]]", timeout: float | None = None) -> T: ...
    @overload
    def result(self: "JobHandle[T]", timeout: float | None = None) -> T: ...
    def result(self, timeout: float | None = None) -> Any:
        """Wait for what ``perform`` returned. The class must keep it: ``class Report(Job, keep=True)``.

        Args:
            timeout: seconds to wait, None for ever.

        Raises:
            JobFailed: the job failed for good, or was cancelled.
            ResultUnavailable: the row is gone, and the result with it.
            ResultTimeout: it did not finish in time.
        """
        for pause in self._looks(timeout):
            time.sleep(pause)
            found, value = self._result()
            if found:
                return value
        raise self._too_late(timeout)

    @overload
    async def aresult(self: "JobHandle[Coroutine[Any, Any, T]]", timeout: float | None = None) -> T: ...  # noqa: ASYNC109
    @overload
    async def aresult(self: "JobHandle[T]", timeout: float | None = None) -> T: ...  # noqa: ASYNC109
    async def aresult(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the same as result()
        """Wait for what ``perform`` returned, as :meth:`result` does, from asynchronous code."""
        for pause in self._looks(timeout):
            await asyncio.sleep(pause)
            found, value = await asyncio.to_thread(self._result)
            if found:
                return value
        raise self._too_late(timeout)

    def _looks(self, timeout: float | None) -> Iterator[float]:
        """Yield how long to wait before each look: at once, then ever longer."""
        deadline = None if timeout is None else time.monotonic() + timeout
        yield 0
        pause = _FIRST_LOOK
        while deadline is None or time.monotonic() < deadline:
            yield pause if deadline is None else min(pause, max(0.0, deadline - time.monotonic()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _result(self) -> tuple[bool, Any]:
        record = self.record
        if record is None:
            raise ResultUnavailable(
                f"job #{self.id} has no result",
                why="its row is gone: success deletes it, unless the class keeps it",
                mend="class ...(Job, keep=True)",
            )
        if record.state is JobState.SUCCEEDED:
            if record.result is None:
                raise ResultUnavailable(
                    f"job #{self.id} is done, but its result could not be kept",
                    why="JSON cannot hold what perform returned",
                    mend="see the worker's log, and return something simpler",
                )
            return True, self._codec.decode_result(record.result)
        if record.state in {JobState.FAILED, JobState.CANCELLED}:
            raise JobFailed(f"job #{self.id} {record.state.value}", why=record.last_error or "")
        return False, None

    def _too_late(self, timeout: float | None) -> ResultTimeout:
        return ResultTimeout(
            f"job #{self.id} has no result after {timeout} s",
            why=f"it is {self.state}",
            mend="wait longer, or see that a worker runs",
        )
