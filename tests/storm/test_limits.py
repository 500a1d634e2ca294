"""Jobs that only a limit can stop, on each database, with neighbours that must not pay for them."""

import psutil
import pytest
from seeds import FULL

import test_isolation
import test_overruns
from background import Project, wait_until
from sapwood.lifecycle import TIMED_OUT
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(600)

JOBS = test_overruns.JOBS + test_isolation.JOBS

REASONS = {
    "swallower": TIMED_OUT,
    "blocker": TIMED_OUT,
    "hog": TIMED_OUT,
    "swallows": "timeout: not finished within 0.3 s",
    "hogs": "timeout: not finished within 0.3 s",
    "leaves": "its process ended with no outcome: exit code 0",
    "crashes": "its process ended with no outcome: killed by SIGSEGV",
    "greedy": "MemoryError: beyond 268435456 bytes, its limit",
}
"""Poisons, and why each of them has failed."""


@pytest.fixture
def project(tmp_path, url):
    project = Project(tmp_path / "project", url, more=JOBS, scale=1 / 10)
    yield project
    project.end()


@pytest.mark.parametrize("kind", ["swallower", "blocker", "hog"] if FULL else ["hog"])
def test_what_cannot_be_stopped_ends_with_its_process_on_each_database(project, kind):
    test_overruns.overrun(project, kind)


def test_the_others_have_their_time_before_the_process_ends_on_each_database(project):
    project.start("-n", "1", "-c", "3")
    (late,) = project.enqueue("swallower", 1, max_attempts=1)
    wait_until(lambda: project.counted("swallowed") == 1)
    # It begins after the first has had its time, and ends in the time that is left to all others.
    project.enqueue("effect", 2, seconds=0.5)
    wait_until(lambda: project.states() == {JobState.FAILED: 1})
    assert test_overruns.fate(project, late) == test_overruns.LATE
    assert [(number, attempt) for number, attempt, _ in project.effects()] == [(2, 1)]
    # It was asked once.
    assert project.counted("swallowed") == 1


def test_a_worker_whose_late_job_ends_after_all_goes_on(tmp_path, database_url):
    project = Project(tmp_path / "project", database_url("sqlite"), more=JOBS, scale=1 / 4)
    try:
        project.start("-n", "1", "-c", "2")
        (worker,) = project.workers()
        project.enqueue("gate", 9)
        (slow,) = project.enqueue("slow", 1)
        wait_until(lambda: project.adapter.get(slow).last_error)
        assert project.adapter.get(slow).last_error == "timeout: not finished within 0.3 s"
        assert "cannot be stopped" in project.log()
        project.enqueue("effect", 5)
        wait_until(lambda: project.counted() == 1)
        assert [process.pid for process in project.workers()] == [worker.pid]
    finally:
        project.end()


@pytest.mark.parametrize("outlast", [test_isolation.outlast, test_isolation.outlast_stand_alone])
def test_an_isolated_job_that_outlasts_its_worker_is_released_on_each_database(project, outlast):
    outlast(project)


def test_poisons_that_only_a_limit_stops_fail_with_their_reason_among_good_jobs(project, size, capsys):
    times = 3 if size.scale < 1 else 100
    good = 1_000 * times
    project.start("-n", "2", "-c", "4")
    poisons = {}
    for number in range(times):
        for kind in REASONS:
            (job,) = project.enqueue(kind, -1 - number, max_attempts=1)
            poisons[job] = kind
        project.enqueue("effect", *range(number * 1_000, (number + 1) * 1_000))
    took = wait_until(lambda: set(project.states()) == {JobState.FAILED}, seconds=120 * times, pause=0.1)
    records = project.adapter.jobs(limit=10_000)
    assert {record.id for record in records} == set(poisons), "no innocent has failed"
    assert {record.id: record.last_error for record in records} == {job: REASONS[kind] for job, kind in poisons.items()}
    assert {(record.attempts, record.deaths) for record in records} == {(1, 0)}
    assert {number for number, _, _ in project.effects()} == set(range(good)), "every good job is done"
    assert {attempt for _, attempt, _ in project.effects()} == {1}, "and none has spent a try on a poison"
    wait_until(lambda: not test_isolation.living(project), about="the jobs' processes to be gone")
    assert project.stop().returncode == 0
    wait_until(lambda: not project.left_running())
    assert not [child for child in psutil.Process().children() if "sapwood" in child.name()]
    with capsys.disabled():
        print(f"\n{project.url.partition(':')[0]}: {len(poisons)} poisons among {good} good jobs, in {took:.1f} s")
