"""The options of one enqueue, and what may stand in them."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from sapwood.errors import ConfigurationError, InvalidPriority, InvalidWait
from sapwood.record import check_queue


class Options(Struct, frozen=True, kw_only=True):
    """What ``set()`` was given; None leaves it to the class."""

    wait: float | timedelta | None = None
    wait_until: datetime | None = None
    queue: str | None = None
    priority: int | None = None
    connection: object | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.wait is not None and self.wait_until is not None:
            raise InvalidWait("both wait= and wait_until= are given", mend="choose one of them")
        if self.wait is not None:
            check_wait(self.seconds)
        if self.wait_until is not None:
            check_moment(self.wait_until)
        if self.priority is not None:
            check_priority(self.priority)
        if self.queue is not None:
            check_queue(self.queue)

    @property
    def seconds(self) -> float:
        """The wait in seconds, 0 where there is none."""
        return self.wait.total_seconds() if isinstance(self.wait, timedelta) else self.wait or 0


def check_priority(priority: Any) -> None:
    """Refuse what is no priority."""
    if type(priority) is not int or not 1 <= priority <= 100:  # noqa: PLR2004 - the promise of the product
        raise InvalidPriority(
            f"{priority!r} is no priority", why="1 is worked first, 100 last", mend="an integer from 1 to 100"
        )


def check_wait(seconds: Any) -> None:
    """Refuse what is no length of time from now on."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise InvalidWait(
            f"{seconds!r} is no wait", why="a job can wait for the future only", mend="seconds >= 0, or a timedelta"
        )
    try:
        datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidWait(f"{seconds!r} is no wait", why="the calendar ends before that") from None


def run_time(limit: Any, said: str) -> float | None:
    """Return a ``max_runtime`` in seconds, None where there is no limit.

    Raises:
        ConfigurationError: it is no length of time; ``said`` names where it was written.
    """
    if limit is None:
        return None
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
        raise ConfigurationError(f"{said} is {limit!r}", mend="seconds above 0, a timedelta, or None for no limit")
    return float(seconds)


def longest(limits: Iterable[float | None]) -> float | None:
    """Return the longest of some limits in seconds, None where one of them, or all that there are, is no limit."""
    known = list(limits)
    return None if None in known else max((limit for limit in known if limit is not None), default=None)


def check_moment(moment: Any) -> None:
    """Refuse what is no moment that everybody understands."""
    if not isinstance(moment, datetime):
        raise InvalidWait(
            f"{moment!r} is no datetime", why="wait_until is a moment", mend="wait= takes a length of time"
        )
    if moment.utcoffset() is None:
        raise InvalidWait(
            "wait_until is a datetime without a time zone",
            why="nobody can tell which moment it is",
            mend="make it aware: datetime(..., tzinfo=UTC), or moment.astimezone() for local time",
        )
