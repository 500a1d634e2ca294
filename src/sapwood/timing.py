"""How long things may take before they count as gone, all in one place, and the clock that says so."""

import time

from msgspec import Struct


class Timing(Struct, frozen=True, kw_only=True):
    """How often a worker shows that it lives, and how long others believe it without. All in seconds.

    Whoever changes one keeps ``beat < gap < fence < rescue``, on all hosts the same.
    """

    beat: float = 10
    """A beat is raised this often."""

    look: float = 10
    """The dead are looked for this often."""

    fence: float = 40
    """A worker whose last good beat began longer ago starts nothing: by the time that others take its jobs, what it
    started before is the most that can still run. Shorter than ``rescue``, and counted from an earlier moment."""

    rescue: float = 60
    """A beat that stood still this long, seen by one observer, proves a death where the kernel cannot."""

    gap: float = 20
    """An observer whose own beats had a longer gap was frozen or cut off itself, and begins to watch anew."""

    grace: float = 10
    """A job that was asked to end, since it has had its time, may take so long to do so."""

    drain: float = 30
    """Before a process ends for the sake of a job that cannot be stopped, its other jobs may run on for so long."""

    restart: float = 1
    """A crashed worker is followed by another at once; after each further crash in a row this doubles."""

    restart_most: float = 60
    """No crashed worker is waited for longer. One that lives so long has made good its earlier crashes."""

    def scaled(self, factor: float) -> "Timing":
        """Return these times, each multiplied: for tests that cannot wait a minute."""
        return Timing(**{name: getattr(self, name) * factor for name in self.__struct_fields__})


class Trust:
    """Whether what was claimed can still be ours: for so long after a good beat nobody takes it for a dead one's.

    Args:
        timing: says how long that is.
        began: when the last good beat was begun, by the clock of this host; None before the first.
    """

    def __init__(self, timing: Timing, began: float | None = None) -> None:
        self._fence = timing.fence
        self.began = began

    def beaten(self, began: float) -> None:
        """Note a good beat by when it was *begun*: it was written at that moment or later."""
        self.began = began if self.began is None else max(self.began, began)

    def holds(self, *, at: float) -> bool:
        """Say whether the last good beat is recent enough."""
        return self.began is not None and at - self.began < self._fence

    def has_ended(self, *, at: float) -> bool:
        """Say, once, that it held before and does no more: what was claimed under it must end now."""
        ended = self.began is not None and not self.holds(at=at)
        if ended:
            self.began = None
        return ended


def boot_time() -> float:
    """Return seconds on a clock that nobody sets and that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
