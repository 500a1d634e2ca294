"""Processes frozen and thawed at random: no job has two owners, and no late outcome is taken."""

import itertools
import time

import psutil
import pytest
from storms import STATES, Storm, frozen

from background import wait_until

pytestmark = pytest.mark.timeout(3600)

SPAN = """
class Span(Job, name="span"):
    # A run of a few moments, whose begin and end are noted with the claim that it belongs to.
    def perform(self, number: int) -> None:
        token = self.context.lock_token
        note(number, token, "begin")
        for _ in range(10):
            time.sleep(0.005)
        note(number, token, "end")
"""

NO_SELF_FENCE = (
    SPAN
    + """
from sapwood.supervised import Supervised

Supervised.is_trusted = lambda self: True
"""
)


class _Freezer:
    """Freezes processes for a while, and remembers when each was thawed."""

    def __init__(self, storm: Storm) -> None:
        self._storm = storm
        self.thawed: dict[int, list[float]] = {}

    def freeze(self, state: str, what: str, seconds: float) -> None:
        project = self._storm.project
        supervisor, workers = psutil.Process(project.supervisor(state)), project.workers(state)
        chosen = {
            "a worker": [self._storm.chance.choice(workers)] if workers else [],
            "the supervisor": [supervisor],
            "all": [supervisor, *workers],
        }[what]
        victims = frozen(chosen)
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= until, seconds=seconds + 60)
        self._storm.chance.shuffle(victims)
        for victim in victims:
            self.thawed.setdefault(victim.pid, []).append(time.monotonic())
            if victim.is_running():
                victim.resume()


def _freeze_all_day(tmp_path, url, size, chance, more=SPAN):
    """Freeze and thaw under load; return the worst overlap of two runs of one job, in seconds, and the storm's book."""
    storm = Storm(tmp_path, url, scale=size.scale, chance=chance, more=more)
    freezer = _Freezer(storm)
    project = storm.project
    numbers = 0
    try:
        for round_ in range(size.freezes):
            project.enqueue("span", *range(numbers, numbers + 200))
            numbers += 200
            mark = project.counted("begin")
            wait_until(lambda mark=mark: project.counted("begin") > mark, seconds=60)
            what = ("a worker", "the supervisor", "all")[round_ % 3]
            # Shorter than the fence, and longer than what proves a death.
            freezer.freeze(chance.choice(STATES), what, chance.choice([0.3, 0.9, 1.2, 1.6]) * 60 * size.scale)
        storm.wait_until_done(seconds=120)
        rows = project._effects.execute("SELECT number, attempt, what, pid, at FROM effects ORDER BY at").fetchall()
        storm.end()
    finally:
        project.end()
    return numbers, _runs(rows), freezer.thawed


def _runs(rows):
    """Return the runs that came to their end, by job: token, pid, begin, end."""
    begun, runs = {}, {}
    for number, token, what, pid, at in rows:
        if what == "begin":
            begun[number, token] = (pid, at)
        elif (number, token) in begun:
            runs.setdefault(number, []).append((token, *begun[number, token], at))
    return runs


def _overlaps(runs, thawed):
    """Return by how much runs of one job overlap; the part of a run before its process was thawed did not run."""
    for owners in runs.values():
        alive = []
        for token, pid, begin, end in owners:
            thaws = [at for at in thawed.get(pid, ()) if begin < at <= end]
            alive.append((max(thaws, default=begin), end, token))
        alive.sort()
        for (_, end, first), (begin, _, second) in itertools.pairwise(alive):
            if first != second and begin < end:
                yield end - begin


def test_frozen_processes_leave_no_job_with_two_owners(tmp_path, url, size, chance, capsys):
    numbers, runs, thawed = _freeze_all_day(tmp_path, url, size, chance)
    assert set(runs) == set(range(numbers)), "none lost"
    # A process that thaws after its jobs were taken may run on for the moment until its fence acts.
    worst = max(_overlaps(runs, thawed), default=0.0)
    assert worst <= 1.0
    with capsys.disabled():
        again = sum(len(owners) - 1 for owners in runs.values())
        print(
            f"\n{url.partition(':')[0]}: {size.freezes} freezes, {numbers} jobs, none lost, {again} ran again, "
            f"longest overlap after a thaw {worst * 1000:.0f} ms"
        )


def test_no_late_outcome_is_taken(tmp_path, url, size, chance):
    storm = Storm(tmp_path, url, scale=size.scale, chance=chance, more=SPAN)
    freezer = _Freezer(storm)
    project = storm.project
    try:
        (job,) = project.enqueue("gate", 1)
        wait_until(lambda: project.counted("begun") == 1, about="the gate to be entered")
        ((_, _, pid),) = project.effects("begun")
        owner = next(state for state in STATES if pid in {worker.pid for worker in project.workers(state)})
        # Its whole host stands still until others have its job; they wait at the same gate.
        freezer.freeze(owner, "all", 60 * size.scale * 2)
        wait_until(lambda: project.counted("begun") == 2, seconds=90 * size.scale + 30, about="another owner")
        token = project.adapter.get(job).lock_token
        project.let_gates_open()
        storm.wait_until_done()
        ends = project.effects()
        assert token == 2
        assert [attempt for _, attempt, _ in ends][-1] >= 1
        assert pid not in {ender for _, _, ender in ends[-1:]}
        storm.end()
    finally:
        project.end()


def test_a_build_without_the_workers_own_fence_is_found(tmp_path, database_url, size, chance):
    storm = Storm(tmp_path, database_url("sqlite"), scale=size.scale, chance=chance, more=NO_SELF_FENCE)
    project = storm.project
    try:
        workers = project.workers("one")
        supervisor = psutil.Process(project.supervisor("one"))
        frozen([supervisor])
        _, alive = psutil.wait_procs(workers, timeout=40 * size.scale + 5)
        supervisor.resume()
        assert alive, "they go on without their supervisor: what the quick suite forbids"
    finally:
        project.end()
