"""Many jobs, for long, with kills: what a supervisor and its workers hold does not grow.

The sabotages: a build that keeps something of each job, and one that keeps a file open, must be found.
"""

import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from msgspec import Struct
from seeds import FULL
from storms import kill

from background import Project, wait_until
from sapwood.record import JobDraft

pytestmark = pytest.mark.timeout(8 * 3600)

JOBS, KILLS = (1_000_000, 500) if FULL else (60_000, 10)
WORKERS, CONCURRENCY = 3, 4
CHUNK, AHEAD = 2_000, 10_000
MIB = 1 << 20

MOST_GROWTH = 1 if FULL else 4
"""MiB by which a process may grow: in the full form for a million jobs, in the quick one, not yet warm, in all."""

MOST_WAL = 64 * MIB

NOTHING = """
class Nothing(Job, name="nothing"):
    def perform(self, number: int) -> None:
        pass
"""
KEEPS_RECORDS = """
from sapwood.executor import Executor

_execute, _kept = Executor.execute, []

def execute(self, record, **options):
    _kept.append(bytearray(8192))
    return _execute(self, record, **options)

Executor.execute = execute
"""
KEEPS_FILES = """
from sapwood.executor import Executor

_execute, _kept = Executor.execute, []

def execute(self, record, **options):
    if record.id % 100 == 0:
        _kept.append(open(os.devnull))
    return _execute(self, record, **options)

Executor.execute = execute
"""


class Sample(Struct, frozen=True):
    """What a process holds at a moment."""

    done: int
    memory: int
    descriptors: int
    threads: int


class Soak:
    """One supervisor whose workers are killed, but for the first: that one and the supervisor are looked at."""

    def __init__(self, folder: Path, url: str, *, scale: float, more: str = "") -> None:
        self.project = Project(folder, url, scale=scale, more=NOTHING + more)
        self.project.start("-n", str(WORKERS), "-c", str(CONCURRENCY))
        status = self.project.status()
        self.kept = {
            "supervisor": psutil.Process(status["supervisor"]["pid"]),
            "worker": psutil.Process(status["workers"][0]["pid"]),
        }
        self.samples: dict[str, list[Sample]] = {name: [] for name in self.kept}
        self.enqueued = self.done = self.wal = 0
        self.children: set[int] = set()
        self._database = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else None

    def run(self, jobs: int, kills: int, chance) -> None:
        """Have so many jobs done."""
        at = sorted(chance.randrange(jobs) for _ in range(kills))
        while self.done < jobs:
            wait_until(lambda: self._left() < AHEAD, seconds=120, pause=0.05, about="jobs to be done")
            if self.enqueued < jobs:
                self.project.adapter.enqueue(
                    [JobDraft(job="nothing", args='{"number": 1}') for _ in range(min(CHUNK, jobs - self.enqueued))]
                )
                self.enqueued = min(jobs, self.enqueued + CHUNK)
            left = self._left()
            if self.enqueued == jobs and left:
                wait_until(lambda left=left: self._left() < left, seconds=120, pause=0.05, about="jobs to be done")
            self.done = self.enqueued - self._left()
            while at and at[0] <= self.done:
                at.pop(0)
                self._kill(chance)
            self._look()

    def _left(self) -> int:
        return sum(self.project.adapter.counts().values())

    def _kill(self, chance) -> None:
        others = [one for one in self.project.workers() if one.pid != self.kept["worker"].pid]
        if others:
            kill(chance.choice(others))

    def _look(self) -> None:
        for name, process in self.kept.items():
            held = Sample(
                done=self.done,
                memory=process.memory_full_info().uss,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
            )
            self.samples[name].append(held)
        with suppress(psutil.Error):
            self.children.add(len(self.kept["supervisor"].children(recursive=True)))
        if self._database is not None:
            with suppress(FileNotFoundError):
                self.wal = max(self.wal, self._database.with_name(self._database.name + "-wal").stat().st_size)

    def growth(self, name: str) -> float:
        """Return by how many MiB a process has grown since it was warm: for a million jobs, or in all."""
        early, late = self._early(name), self._late(name)
        grown = statistics.median(one.memory for one in late) - statistics.median(one.memory for one in early)
        jobs = statistics.median(one.done for one in late) - statistics.median(one.done for one in early)
        return (grown / jobs * 1_000_000 if FULL else grown) / MIB

    def wrong(self) -> list[str]:
        """Return what has grown."""
        wrong = []
        for name in self.kept:
            if self.growth(name) > MOST_GROWTH:
                wrong.append(f"the {name} has grown by {self.growth(name):.1f} MiB")
            for what in ("descriptors", "threads"):
                before = max(getattr(one, what) for one in self._early(name))
                after = min(getattr(one, what) for one in self._late(name))
                if after > before:
                    wrong.append(f"the {name} has {after} {what}, {before} before")
        if max(self.children) > WORKERS + 1:
            wrong.append(f"there were {max(self.children)} children")
        if self.wal > MOST_WAL:
            wrong.append(f"the WAL had {self.wal / MIB:.0f} MiB")
        return wrong

    def _early(self, name: str) -> Sequence[Sample]:
        """After a fifth of the jobs all that is made once has been made."""
        return [one for one in self.samples[name] if self.enqueued * 0.2 <= one.done <= self.enqueued * 0.4]

    def _late(self, name: str) -> Sequence[Sample]:
        """The very end is left out: to run dry is another way of working, once."""
        return [one for one in self.samples[name] if self.enqueued * 0.75 <= one.done <= self.enqueued * 0.95]


def test_nothing_grows_however_many_jobs_run_and_workers_die(tmp_path, url, size, chance, capsys):
    soak = Soak(tmp_path / "project", url, scale=size.scale)
    try:
        soak.run(JOBS, KILLS, chance)
        assert soak.project.adapter.counts() == {}, "none failed, none is left"
        assert soak.wrong() == []
        assert soak.project.stop().returncode == 0
        assert soak.project.left_running() == []
        died = soak.project.log().count(" died: ")
    finally:
        soak.project.end()
    grown = ", ".join(f"{name} {soak.growth(name):+.2f} MiB" for name in soak.kept)
    with capsys.disabled():
        print(f"\n{url.partition(':')[0]}: {JOBS} jobs, {died} workers died: {grown}; WAL {soak.wal / MIB:.1f} MiB")


@pytest.mark.parametrize("more", [KEEPS_RECORDS, KEEPS_FILES], ids=["memory", "descriptors"])
def test_a_build_that_keeps_something_of_each_job_is_found(tmp_path, database_url, size, chance, more):
    soak = Soak(tmp_path / "project", database_url("sqlite"), scale=size.scale, more=more)
    try:
        soak.run(30_000, 0, chance)
        assert soak.wrong() != []
    finally:
        soak.project.end()
