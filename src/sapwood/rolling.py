"""A restart without a gap: one worker after another is replaced, each stopping only when its successor is ready."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import zip_longest

from sapwood.processes import Slot

Done = Callable[[str | None], None]
"""Called with the reason why something did not come about, None where it did."""


class Roll:
    """A restart under way.

    Args:
        old: the slots to be replaced.
        new: the slots that follow.
        patience: seconds within which each new worker must get ready.
        done: called at the end.
    """

    def __init__(self, old: Sequence[Slot], new: Sequence[Slot], *, patience: float, done: Done) -> None:
        self._pairs = deque(zip_longest(new, old))
        self._patience = patience
        self._done = done
        self._coming: Slot | None = None
        self._going: Slot | None = None
        self._ready_by = 0.0
        self._replaced = 0

    def go_on(self, slots: list[Slot]) -> bool:
        """Take the steps that can be taken now, adding to ``slots`` what is to be started; True when it is over."""
        while self._coming_is_ready() and self._going_is_gone():
            if not self._pairs:
                self._done(None)
                return True
            self._coming, self._going = self._pairs.popleft()
            if self._coming is not None:
                slots.append(self._coming)
                self._ready_by = time.monotonic() + self._patience
        failure = self._failure()
        if failure is not None:
            self.end(f"{failure}; {self._replaced} replaced, the others go on as they were")
        return failure is not None

    def end(self, why: str) -> None:
        """Give up: the worker that was to come goes, all others stay."""
        if self._coming is not None:
            self._coming.leave()
        self._done(why)

    def _coming_is_ready(self) -> bool:
        return self._coming is None or self._coming.is_ready

    def _going_is_gone(self) -> bool:
        """See the old worker off, now that the new one is ready."""
        if self._going is None:
            return True
        if self._going.wanted:
            self._replaced += 1
            self._going.leave()
        return self._going.process is None

    def _failure(self) -> str | None:
        coming = self._coming
        if coming is None or coming.is_ready:
            return None
        if coming.last_end is not None:
            return f"worker {coming.plan.name}: {coming.last_end}"
        if time.monotonic() > self._ready_by:
            return f"worker {coming.plan.name} was not ready after {self._patience:g} s"
        return None
