"""What storms have in common: two supervisors under load, and what can be done to their processes."""

import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from background import Project, wait_until
from sapwood.lifecycle import Trace
from sapwood.page import Claim, read_page

STATES = ("one", "two")
WORKERS = 4
CONCURRENCY = 5


class Storm:
    """Two supervisors with four workers each, on one store; jobs are added as they are done."""

    def __init__(self, folder: Path, url: str, *, scale: float, chance: random.Random, more: str = "") -> None:
        self.project = Project(folder, url, scale=scale, more=more)
        self.chance = chance
        self.scale = scale
        self.enqueued = 0
        for state in STATES:
            self.start(state)

    def start(self, state: str) -> None:
        """Start a supervisor."""
        self.project.start("-n", str(WORKERS), "-c", str(CONCURRENCY), state=state)

    def add(self, count: int, *, seconds: float = 0.02) -> None:
        """Enqueue so many jobs, half of which do nothing and half take a moment."""
        numbers = range(self.enqueued, self.enqueued + count)
        self.project.enqueue("effect", *numbers[: count // 2])
        self.project.enqueue("effect", *numbers[count // 2 :], seconds=seconds)
        self.enqueued += count

    def missing(self) -> set[int]:
        """Return the jobs that have had no effect."""
        return set(range(self.enqueued)) - {number for number, _, _ in self.project.effects()}

    def wait_until_done(self, *, seconds: float = 60) -> None:
        """Wait until every job is done, or failed for good."""
        wait_until(self.is_done, seconds=seconds, pause=0.1, about="the jobs to be done")

    def is_done(self) -> bool:
        """Say whether nothing is left but what has failed for good."""
        return {state for state in self.project.states() if state != "failed"} == set()

    def end(self) -> None:
        """Stop both supervisors, as an operator does; nothing may be left."""
        for state in STATES:
            done = self.project.stop(state=state)
            assert done.returncode == 0, done.stderr + done.stdout + self.project.log(state)[-3000:]
        wait_until(lambda: self.project.left_running() == [], seconds=10, about="all processes to be gone")
        assert self.project.adapter.workers() == []


def frozen(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Freeze processes, and wait until they are; return those that live."""
    alive = []
    for process in processes:
        with suppress(psutil.Error):
            process.suspend()
            alive.append(process)
    for process in alive:
        wait_until(lambda process=process: _state(process) in {psutil.STATUS_STOPPED, "gone"}, seconds=5, pause=0.001)
    return [process for process in alive if _state(process) != "gone"]


def _state(process: psutil.Process) -> str:
    try:
        status = process.status()
    except psutil.Error:
        return "gone"
    return "gone" if status == psutil.STATUS_ZOMBIE else str(status)


def notes_of(process: psutil.Process) -> Mapping[Claim, Trace]:
    """Return what a frozen worker has noted: the page that whoever proves its death would read."""
    folder = Path(f"/proc/{process.pid}/fd")
    for entry in folder.iterdir():
        with suppress(OSError):
            target = str(entry.readlink())
            if "(deleted)" in target or ".workers/" in target:
                fd = os.open(entry, os.O_RDONLY)
                try:
                    notes = read_page(fd)
                finally:
                    os.close(fd)
                if notes is not None:
                    return notes
    return {}


def kill(process: psutil.Process) -> None:
    """Kill a process at once."""
    with suppress(psutil.Error):
        process.send_signal(signal.SIGKILL)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which so many of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def now() -> float:
    """Return the clock that jobs note, too."""
    return time.monotonic()
