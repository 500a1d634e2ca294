"""Clocks that are set, by an hour and by a month, of workers and of servers: nobody is taken for dead for it.

A library that is loaded first sets the clocks of single processes; this machine's own is never touched. The sabotage: a
build that takes workers for dead by the age of their beat, compared between two clocks, must be found.
"""

import os
import struct
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import plugin_servers
import servers
from background import Project, wait_until
from sapwood.record import JobDraft, JobState

pytestmark = pytest.mark.timeout(3600)

PRELOADED = Path(__file__).parent.parent / "programs" / "clock.c"
HOUR, MONTH = 3600, 30 * 86_400
STEPS = (HOUR, -HOUR, MONTH, -MONTH)

BY_AGE = """
from datetime import UTC, datetime, timedelta

from sapwood import maintenance

class Aged(maintenance.BeatWatch):
    def still(self, workers, *, at):
        return [worker for worker in workers if datetime.now(UTC) - worker.beat_at > timedelta(seconds=60)]

maintenance.BeatWatch = Aged

from sapwood import steward

steward.BeatWatch = Aged
"""


class Clock:
    """The clock of some processes, which can be set while they run."""

    def __init__(self, folder: Path, name: str) -> None:
        library = folder / "clock.so"
        if not library.exists():
            cc = plugin_servers.program("cc")
            subprocess.run([cc, "-shared", "-fPIC", "-O1", "-o", library, PRELOADED, "-ldl"], check=True)
        self._file = folder / name
        self.set(0)
        self._file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(library), "TEST_CLOCK": str(self._file)}

    def set(self, offset: int) -> None:
        """Set it so many seconds before or behind the true time."""
        fd = os.open(self._file, os.O_WRONLY | os.O_CREAT)
        os.pwrite(fd, struct.pack("l", offset), 0)
        os.close(fd)


@pytest.fixture
def clocks(tmp_path_factory):
    """A folder for clocks that servers, which run as somebody else, can read."""
    folder = tmp_path_factory.mktemp("clocks")
    for path in (folder, folder.parent, folder.parent.parent):
        path.chmod(path.stat().st_mode | 0o055)
    return folder


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def timed(request, clocks, tmp_path):
    """A URL, and the clocks: that of one host with its workers, and the server's where there is one."""
    mine = {"one": Clock(clocks, "one")}
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db", mine
        return
    mine["server"] = Clock(clocks, "server")
    server = servers.by_a_clock(request.param, mine["server"].environment)
    try:
        yield server.new_database(), mine
    finally:
        server.stop()


def _started(folder, url, clocks, size, sabotage=""):
    project = Project(folder, url, scale=size.scale)
    environ = project.sabotage(sabotage) if sabotage else {}
    for name in ("one", "two"):
        clock = clocks[name].environment if name in clocks else {}
        project.start("-n", "1", "-c", "4", state=name, **clock, **environ)
    return project


def _beats(project):
    return {worker.id: worker.beat for worker in project.adapter.workers()}


def _after_some_beats(project, count=3):
    """Wait until every worker was beaten for some more times: whoever would be taken for dead has been by then."""
    before = _beats(project)
    wait_until(
        lambda: all(_beats(project).get(name, 1 << 60) >= beat + count for name, beat in before.items()),
        seconds=60,
        pause=0.1,
        about="beats",
    )


def _deaths(project):
    return sum(project.log(state).count("is dead") for state in ("one", "two"))


def test_a_clock_that_is_set_makes_nobody_dead_and_nothing_due(tmp_path, timed, size, chance, capsys):
    url, clocks = timed
    rounds = 50 if size.scale == 1 else 1
    project = _started(tmp_path / "project", url, clocks, size)
    try:
        pids = {worker.pid for state in ("one", "two") for worker in project.workers(state)}
        gates = project.enqueue("gate", 1, 2)
        wait_until(lambda: project.counted("begun") == 2, seconds=60, about="two long jobs to run")
        done = 0
        steps = [(name, step) for name in clocks for step in STEPS] * rounds
        chance.shuffle(steps)
        for name, step in steps:
            clocks[name].set(step)
            project.enqueue("effect", *range(done, done + 20), seconds=0.005)
            done += 20
            _after_some_beats(project)
        assert _deaths(project) == 0, "false rescues"
        assert {worker.pid for state in ("one", "two") for worker in project.workers(state)} == pids
        assert {project.adapter.get(gate).lock_token for gate in gates} == {1}, (
            "the long jobs were left to their owners"
        )
        project.let_gates_open()
        _all_true(clocks)
        # What was enqueued while a clock stood in the future is due when that clock says so.
        _wait_for_the_present(project, done)
        assert sorted(number for number, _, _ in project.effects()) == sorted([*range(done), 1, 2])
        for state in ("one", "two"):
            assert project.stop(state=state).returncode == 0
    finally:
        project.end()
    with capsys.disabled():
        print(f"\n{url.partition(':')[0]}: {len(steps)} steps of clocks, {done} jobs, false rescues 0, none done twice")


def _all_true(clocks):
    for clock in clocks.values():
        clock.set(0)


def _wait_for_the_present(project, done):
    """Let jobs be due whose time was said by a clock that ran ahead."""
    waiting = [job for job in project.adapter.jobs(limit=10_000) if job.state is JobState.SCHEDULED]
    project.adapter.retry(waiting)
    wait_until(lambda: project.counted() >= done + 2, seconds=60, about="all to be done")


def test_what_is_due_is_said_by_the_stores_clock_alone(tmp_path, timed, size):
    url, clocks = timed
    project = _started(tmp_path / "project", url, clocks, size)
    try:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        project.adapter.enqueue([JobDraft(job="effect", args='{"number": 1}', run_at=tomorrow)])
        if "server" in clocks:
            # The workers' clocks say nothing.
            clocks["one"].set(MONTH)
            _after_some_beats(project)
            assert project.counted() == 0
            clocks["server"].set(MONTH)
        else:
            # The only clock is the one of whoever looks.
            _after_some_beats(project)
            assert project.counted() == 0
            clocks["one"].set(MONTH)
        wait_until(lambda: project.counted() == 1, seconds=60, about="it to be due")
        assert _deaths(project) == 0
    finally:
        project.end()


def test_a_build_that_compares_clocks_is_found(tmp_path, clocks, size):
    mine = {name: Clock(clocks, name) for name in ("one", "server")}
    server = servers.by_a_clock("postgresql", mine["server"].environment)
    project = None
    try:
        project = _started(tmp_path / "project", server.new_database(), mine, size, sabotage=BY_AGE)
        mine["one"].set(HOUR)
        wait_until(lambda: _deaths(project) > 0, seconds=60, about="a living worker to be taken for dead")
    finally:
        if project is not None:
            project.end()
        server.stop()
