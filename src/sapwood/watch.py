"""Who looks at the clock while jobs run: asks those to end that have had their time, and knows those that do not."""

import threading
from collections.abc import Callable

from msgspec import Struct

from sapwood.limit import Limit
from sapwood.page import Claim
from sapwood.timing import boot_time

_LONGEST_REST = 3600.0


class _Run(Struct):
    limit: Limit
    ask_at: float
    stuck_at: float
    is_asked: bool = False

    @property
    def next(self) -> float | None:
        if self.limit.is_stuck:
            return None
        return self.stuck_at if self.is_asked else self.ask_at


class Watch:
    """One thread for all runs of a worker that have a limit; without such runs there is none.

    Args:
        grace: seconds that a run may take to end once it was asked to.
        stuck: called, from the thread, when a run has not ended by then.
    """

    def __init__(self, *, grace: float, stuck: Callable[[], None]) -> None:
        self._grace = grace
        self._stuck = stuck
        self._lock = threading.Condition()
        self._runs: dict[Claim, _Run] = {}
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self, claim: Claim, limit: Limit) -> float:
        """Watch a run; return when it must have ended, by :func:`boot_time`, 0 where it may take for ever."""
        if limit.seconds is None:
            return 0.0
        ask_at = boot_time() + limit.seconds
        run = _Run(limit, ask_at, ask_at + self._grace)
        with self._lock:
            self._runs[claim] = run
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_on, name="sapwood-limits", daemon=True)
                self._thread.start()
            elif ask_at < self._wakes_at:
                self._lock.notify()
        return run.stuck_at

    def end(self, claim: Claim) -> None:
        """Watch a run no more: it has ended."""
        if self._runs:
            with self._lock:
                self._runs.pop(claim, None)

    def stuck(self) -> frozenset[Claim]:
        """Return the runs that were asked to end, and have not within their grace."""
        if not self._runs:
            return frozenset()
        with self._lock:
            return frozenset(claim for claim, run in self._runs.items() if run.limit.is_stuck)

    def close(self) -> None:
        """End the thread. Nothing may run any more."""
        with self._lock:
            self._closed = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()

    def _look_on(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                found = self._look()
                now = boot_time()
                due = [moment for run in self._runs.values() if (moment := run.next) is not None]
                self._wakes_at = min(due, default=now + _LONGEST_REST)
                if not found:
                    self._lock.wait(min(max(0.0, self._wakes_at - now), _LONGEST_REST))
            if found:
                self._stuck()

    def _look(self) -> bool:
        """Ask whose time is over; say whether one is found to be stuck. Called with the lock held."""
        now, found = boot_time(), False
        for run in self._runs.values():
            if not run.is_asked and now >= run.ask_at:
                run.is_asked = True
                run.limit.ask()
            if not run.limit.is_stuck and now >= run.stuck_at:
                run.limit.is_stuck = found = True
        return found
