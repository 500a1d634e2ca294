"""Jobs that no exception ends: their process does, and nobody else pays for it. Real processes, for real."""

import signal
import subprocess
import sys

import pytest

from background import Project, wait_until
from sapwood.lifecycle import TIMED_OUT
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(120)

JOBS = """
class Swallower(Job, name="swallower", max_runtime=0.3):
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        while True:
            try:
                while True:
                    time.sleep(0.001)
            except BaseException:
                note(number, self.context.attempt, "swallowed")


class Hog(Job, name="hog", max_runtime=0.3):
    # One instruction of Python: no other thread gets to run.
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        sum(range(10**15))


class Blocker(Job, name="blocker", max_runtime=0.3):
    async def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        time.sleep(3600)


class Slow(Job, name="slow", max_runtime=0.3):
    # Hears nothing while it sleeps, and ends when the others are given their time.
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        time.sleep(3.5)


class Relapses(Job, name="relapses"):
    # Kills its worker, is set apart for that, and hangs.
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        if self.context.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        sum(range(10**15))
"""


@pytest.fixture
def project(tmp_path, database_url):
    project = Project(tmp_path / "project", database_url("sqlite"), more=JOBS)
    yield project
    project.end()


def fate(project, job: int) -> tuple[object, ...]:
    record = project.adapter.get(job)
    return record.state, record.attempts, record.deaths, record.alone, record.last_error


LATE = (JobState.FAILED, 1, 0, False, TIMED_OUT)


def overrun(project, kind: str) -> None:
    """Have a job outlast its time for good beside two that do not end: it alone pays."""
    project.start("-n", "1", "-c", "3")
    neighbours = project.enqueue("gate", 10, 11)
    wait_until(lambda: project.counted("begun") == 2)
    (worker,) = project.workers()
    (late,) = project.enqueue(kind, 1, max_attempts=1)
    wait_until(lambda: project.states().get(JobState.FAILED) == 1, about=f"the {kind} to be ended")
    assert fate(project, late) == LATE
    assert [line.error for line in project.adapter.attempts(late)] == [TIMED_OUT]
    # The next worker is there at once, and has taken the neighbours.
    wait_until(lambda: project.counted("begun") == 5)
    assert [(project.adapter.get(job).attempts, project.adapter.get(job).deaths) for job in neighbours] == [(1, 0)] * 2
    assert worker.pid not in {process.pid for process in project.workers()}
    project.let_gates_open()
    wait_until(lambda: project.states() == {JobState.FAILED: 1})
    assert "outlasted its time" in project.status()["workers"][0]["last_end"]
    assert "died" not in project.log(), "it was no crash, after which the next worker might have to wait"


@pytest.mark.parametrize("kind", ["swallower", "hog"])
def test_what_cannot_be_stopped_ends_with_its_process_and_its_neighbours_keep_their_try(project, kind):
    overrun(project, kind)


def test_work_in_a_terminal_goes_on_after_a_job_that_cannot_be_stopped(project):
    worker = subprocess.Popen(
        [sys.executable, "-m", "sapwood", "work"], cwd=project.folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        (late,) = project.enqueue("swallower", 1, max_attempts=1)
        wait_until(lambda: project.states() == {JobState.FAILED: 1})
        project.enqueue("effect", 5)
        wait_until(lambda: project.counted() == 1)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    finally:
        worker.kill()
        worker.communicate()
    assert (fate(project, late), worker.returncode) == (LATE, 0)


def test_a_worker_without_a_supervisor_ends_itself_and_the_next_one_reads_why_on_sqlite(project):
    (late,) = project.enqueue("swallower", 1, max_attempts=1)
    (neighbour,) = project.enqueue("gate", 2)
    assert project.call("workoff").returncode == 124
    assert project.adapter.get(late).state is JobState.RUNNING
    project.let_gates_open()
    assert project.call("workoff").returncode == 0
    assert fate(project, late) == LATE
    assert project.adapter.get(neighbour) is None
    assert [(number, attempt) for number, attempt, _ in project.effects()] == [(2, 1)]


def test_the_limit_of_a_group_holds_for_what_a_death_has_set_apart(tmp_path, database_url):
    workers = "(WorkerGroup(max_runtime=0.3),)"
    project = Project(tmp_path / "project", database_url("sqlite"), workers=workers, more=JOBS)
    try:
        project.start()
        (late,) = project.enqueue("relapses", 1, max_attempts=2)
        wait_until(lambda: project.states().get(JobState.FAILED) == 1, about="it to be ended")
        assert fate(project, late) == (JobState.FAILED, 2, 1, True, TIMED_OUT)
    finally:
        project.end()
