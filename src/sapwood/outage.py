"""A store that fails: how long to wait before it is asked again, and what is told of that."""

import random
import time

from sapwood.events import Events, StoreFailed, StoreRecovered

RETRY_MOST = 2.0
"""No pause is longer, however long a store has been away: it returns without notice, and work goes on soon after."""

_SAID_AGAIN = 60.0
"""Seconds after which a failure that goes on is told of once more."""


class Outage:
    """Counts the failures in a row of one thing that is asked of a store.

    Args:
        doing: what is asked, in a word.
        events: told of the first failure and of any other kind that follows, then once a minute, and of the end.
        most: the longest pause, in seconds.
    """

    def __init__(self, doing: str, events: Events, *, most: float = RETRY_MOST) -> None:
        self._doing = doing
        self._events = events
        self._most = min(most, RETRY_MOST)
        self._failures = 0
        self._began = 0.0
        self._told: tuple[type[Exception], float] | None = None

    def failed(self, error: Exception) -> float:
        """Take note of a failure; return the seconds to wait, more after each, so that a store is not overrun."""
        now = time.monotonic()
        if not self._failures:
            self._began = now
        self._failures += 1
        told = self._told
        again = told is not None and told[0] is type(error) and now - told[1] < _SAID_AGAIN
        if not again:
            self._told = (type(error), now)
        self._events.emit(StoreFailed(self._doing, error, again=again))
        longest: float = min(self._most, 0.1 * 2 ** min(self._failures, 10))
        return longest * random.random()  # noqa: S311 - a spread, not a secret

    def ended(self) -> None:
        """Take note of a success."""
        if self._failures:
            self._failures, self._told = 0, None
            self._events.emit(StoreRecovered(self._doing, time.monotonic() - self._began))
