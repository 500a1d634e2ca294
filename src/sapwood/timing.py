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

    restart: float = 1
    """A crashed worker is followed by another at once; after each further crash in a row this doubles."""

    restart_most: float = 60
    """No crashed worker is waited for longer. One that lives so long has made good its earlier crashes."""

    def scaled(self, factor: float) -> "Timing":
        """Return these times, each multiplied: for tests that cannot wait a minute."""
        return Timing(**{name: getattr(self, name) * factor for name in self.__struct_fields__})


def boot_time() -> float:
    """Return seconds on a clock that nobody sets and that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
