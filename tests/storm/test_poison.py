"""Poison among good jobs: the good ones are done, each poison fails for its own reason, and little time is lost."""

import time
from contextlib import suppress

import pytest
from seeds import FULL

from background import Project, wait_until
from poison import ALL, DAMAGE, JOBS
from sapwood.record import JobRecord, JobState

pytestmark = pytest.mark.timeout(3600)

SIZES = {"sqlite": (10_000, 100) if FULL else (2_000, 10)}
SIZES["postgresql"] = SIZES["mysql"] = SIZES["sqlite"] if FULL else (300, 1)
"""How many good jobs, and how many of each kind of poison. The time goes into processes, alike on every database."""

TRIES = 24 if FULL else 2
"""Those of a job that kills its worker: in the quick form its second death is its last."""

SECONDS = 0.25
"""How long a good job takes. A death costs the time of a new process: the shorter the jobs, the more of them it is."""

WORKERS, CONCURRENCY = 4, 3
KINDS = {kind: how for kind, how in ALL.items() if kind not in {"exit_3", "sys_exit_0", "all_descriptors"}}

LOST = "its last try failed, its outcome was lost with its worker"
"""What is left of a reason when a neighbour kills the worker before it is written."""

UNPROTECTED = """
from sapwood.ground import Ground

Ground.is_whole = lambda self: True
"""


class _Mix:
    """Good jobs, with poison strewn among them or without, worked off by one supervisor."""

    def __init__(self, folder, url, size, chance, *, good, poison, more=""):
        self.project = Project(folder, url, scale=size.scale, more=JOBS + more)
        self.poison: dict[int, str] = {}
        kinds = [kind for kind in KINDS for _ in range(poison)]
        # The same places in each run: which jobs are claimed together decides what a death takes along.
        places = sorted((chance.random(), kind) for kind in kinds)
        each = good // (len(places) + 1) if places else good
        self.good: list[int] = []
        for _, kind in places:
            self._add(each)
            self.poison |= dict.fromkeys(self._enqueue(kind), kind)
        self._add(good - len(self.good))
        self.project.start("-n", str(WORKERS), "-c", str(CONCURRENCY))

    def _add(self, count: int) -> None:
        numbers = range(len(self.good), len(self.good) + count)
        self.good += self.project.enqueue("effect", *numbers, seconds=SECONDS)

    def _enqueue(self, kind: str) -> list[int]:
        tries = 24 if ALL[kind] is DAMAGE else TRIES if ALL[kind].deaths else 1
        return self.project.enqueue("poison", -1, kind=kind, max_attempts=tries)

    def seconds(self) -> tuple[float, float]:
        """Return how long it took until all good jobs were done that no death had set apart, and until the end."""
        began = time.monotonic()
        wait_until(self._only_apart_is_left, seconds=900, pause=0.1, about="the good jobs")
        good = time.monotonic() - began
        wait_until(self._is_over, seconds=1800, pause=0.2, about="the poison to fail")
        return good, time.monotonic() - began

    def _waiting(self) -> list[JobRecord]:
        return [job for job in self.project.adapter.jobs(limit=100_000) if job.state is not JobState.FAILED]

    def _only_apart_is_left(self) -> bool:
        good = {*self.good}
        return all(job.alone for job in self._waiting() if job.id in good)

    def _is_over(self) -> bool:
        return set(self.project.states()) <= {JobState.FAILED}

    def wrong(self) -> list[str]:
        """Return what did not end as it must."""
        left = {job.id: job for job in self.project.adapter.jobs(limit=100_000)}
        done = {number for number, _, _ in self.project.effects()}
        wrong = [f"good job {number} was not done" for number in range(len(self.good)) if number not in done]
        wrong += [f"an innocent failed: {left[job].last_error}" for job in self.good if job in left]
        for job, kind in self.poison.items():
            error = (job in left and left[job].last_error) or "nothing"
            if not error.startswith(ALL[kind].error) and (ALL[kind].deaths or error != LOST):
                wrong.append(f"{kind}: {error[:100]}")
        return wrong

    def lost(self) -> int:
        """Return how many reasons were lost with a worker."""
        left = self.project.adapter.jobs(limit=100_000)
        return sum(job.last_error == LOST for job in left)


def test_poison_among_good_jobs_fails_for_its_own_reason_and_no_innocent_does(tmp_path, url, size, chance, capsys):
    count, many = SIZES[url.partition(":")[0].partition("+")[0]]
    alone = _Mix(tmp_path / "without", url, size, chance, good=count, poison=0)
    try:
        without, _ = alone.seconds()
        assert alone.wrong() == []
    finally:
        alone.project.end()
    mixed = _Mix(tmp_path / "with", url, size, chance, good=count, poison=many)
    try:
        good, end = mixed.seconds()
        assert mixed.wrong() == []
        lost, restarts = mixed.lost(), mixed.project.log().count(" died: ")
        assert mixed.project.stop().returncode == 0
        assert mixed.project.left_running() == []
    finally:
        mixed.project.end()
    with capsys.disabled():
        print(
            f"\n{url.partition(':')[0]}: {len(mixed.poison)} poisoned jobs of {len(KINDS)} kinds among {count} good: "
            f"innocents failed 0, {restarts} processes died, {lost} reasons lost with a neighbour's death; "
            f"good jobs in {good:.1f} s, without poison in {without:.1f} s, {100 * (1 - without / good):.0f} % "
            f"of the throughput lost; all over after {end:.0f} s"
        )
    assert good <= 3 * without + 30, "a worker that was killed is followed at once"


def test_a_build_that_does_not_look_at_its_descriptors_is_found(tmp_path, database_url, size, chance):
    mix = _Mix(tmp_path, database_url("sqlite"), size, chance, good=200, poison=0, more=UNPROTECTED)
    try:
        (job,) = mix.project.enqueue("poison", -1, kind="all_descriptors")
        mix.poison[job] = "all_descriptors"
        # It may well not end at all.
        with suppress(AssertionError):
            wait_until(mix._is_over, seconds=20)
        assert mix.wrong() != []
    finally:
        mix.project.end()
