"""Stopped and restarted under load: nothing is claimed any more, no try is spent, the end comes in time."""

import random
import signal
import time

import psutil
import pytest
from storms import STATES, Storm

from background import Project, wait_until
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(3600)

TIMEOUT = 0.5


def _under_load(storm: Storm) -> None:
    storm.add(300, seconds=0.02)
    mark = storm.project.counted()
    wait_until(lambda: storm.project.counted() > mark, seconds=30)


def _stopped(project: Project, chance: random.Random) -> float:
    """Stop the supervisor by a signal, or by two; return how long its end took."""
    supervisor = psutil.Process(project.supervisor("three"))
    number = chance.choice([signal.SIGTERM, signal.SIGINT])
    told = time.monotonic()
    for _ in range(chance.choice([1, 1, 2])):
        supervisor.send_signal(number)
    supervisor.wait(timeout=60)
    return time.monotonic() - told


def _check_stopped(project: Project) -> None:
    jobs = project.adapter.jobs(limit=100_000)
    assert {job.state for job in jobs} <= {JobState.READY}, "nothing is left running"
    assert [job.id for job in jobs if job.attempts or job.deaths] == [], "no try is spent"
    assert project.left_running() == []
    assert project.adapter.workers() == []


def test_stops_under_load_claim_nothing_spend_no_try_and_come_in_time(tmp_path, url, size, chance, capsys):
    storm = Storm(tmp_path, url, scale=size.scale, chance=chance)
    project = storm.project
    longest = 0.0
    try:
        for state in STATES:
            assert project.stop(state=state).returncode == 0
        for _ in range(size.stops):
            project.start("-n", "3", "--shutdown-timeout", str(TIMEOUT), state="three")
            _under_load(storm)
            # Some that will not end by themselves.
            project.enqueue("gate", -1, -2)
            longest = max(longest, _stopped(project, chance))
            _check_stopped(project)
            project.adapter.clear()
    finally:
        project.end()
    assert longest <= TIMEOUT + 2 + (1 if size.scale < 1 else 0)
    with capsys.disabled():
        print(f"\n{url.partition(':')[0]}: {size.stops} stops under load, the longest took {longest:.2f} s")


def test_restarts_under_load_lose_nothing_and_spend_no_try(tmp_path, url, size, chance):
    storm = Storm(tmp_path, url, scale=size.scale, chance=chance)
    project = storm.project
    try:
        for number in range(max(2, size.stops // 5)):
            _under_load(storm)
            spec = ["-n", str(chance.choice([2, 4]))] if number % 2 else []
            done = project.call("restart", "--state-dir", "one", *spec)
            assert done.returncode == 0, done.stderr
            assert [job.id for job in project.adapter.jobs(limit=100_000) if job.deaths] == []
        storm.wait_until_done()
        assert storm.missing() == set()
        assert len(project.effects()) == storm.enqueued, "nothing was done twice"
        storm.end()
    finally:
        project.end()
