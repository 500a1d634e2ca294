"""Workers and supervisors killed at random, with jobs as they come: nothing lost, nothing stuck, little done twice."""

import psutil
import pytest
from storms import CONCURRENCY, STATES, WORKERS, Storm, frozen, kill, notes_of, percentile

from background import wait_until
from sapwood.lifecycle import Trace
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(3600)


class _Killer:
    """Kills processes, and keeps a book of what they had started."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.unsettled = 0
        self.deaths: dict[int, int] = {}
        """How often each job was running when its worker was killed, by the notes of that worker."""

        self.most_started = 0
        """The most jobs that any worker had started and not ended, by its notes."""

        self.back_after_worker: list[float] = []
        self.back_after_supervisor: list[float] = []

    def kill_worker(self, state: str) -> None:
        workers = [worker for worker in self.storm.project.workers(state) if "worker" in _line(worker)]
        if not workers:
            return
        victim = self.storm.chance.choice(workers)
        self._note(frozen([victim]))
        kill(victim)
        self.back_after_worker.append(self._until_gone({victim.pid}, seconds=30))

    def kill_supervisor(self, state: str) -> None:
        supervisor = psutil.Process(self.storm.project.supervisor(state))
        workers = self.storm.project.workers(state)
        # The supervisor first: it must not take a frozen worker for one that is slow, nor start another.
        frozen([supervisor])
        workers = list({*workers, *supervisor.children()})
        self._note(frozen(workers))
        kill(supervisor)
        wait_until(lambda: not any(_lives(worker) for worker in workers), seconds=10, about="its workers to end")
        self.back_after_supervisor.append(self._until_gone({worker.pid for worker in workers}, seconds=90))
        self.storm.start(state)

    def _note(self, workers: list[psutil.Process]) -> None:
        for worker in workers:
            notes = notes_of(worker)
            self.unsettled += len(notes)
            started = [job for (job, _), trace in notes.items() if trace is Trace.STARTED]
            self.most_started = max(self.most_started, len(started))
            for job in started:
                self.deaths[job] = self.deaths.get(job, 0) + 1

    def _until_gone(self, pids: set[int], *, seconds: float) -> float:
        """Return how long it took until these workers' jobs were back: their rows go first."""
        adapter = self.storm.project.adapter
        return wait_until(
            lambda: pids.isdisjoint(worker.pid for worker in adapter.workers()),
            seconds=seconds,
            pause=0.01,
            about="the dead to be rescued",
        )


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def test_a_storm_of_kills_loses_nothing_and_repeats_only_what_was_running(tmp_path, url, size, chance, capsys):
    storm = Storm(tmp_path, url, scale=size.scale, chance=chance)
    killer = _Killer(storm)
    project = storm.project
    try:
        for _ in range(size.kills):
            storm.add(size.jobs // size.kills)
            mark = project.counted() + chance.randrange(size.jobs // size.kills)
            wait_until(lambda mark=mark: project.counted() >= mark or not storm.missing(), seconds=60, pause=0.005)
            state = chance.choice(STATES)
            if chance.random() < 0.2:
                killer.kill_supervisor(state)
            else:
                killer.kill_worker(state)
        storm.wait_until_done(seconds=120)

        failed = {job.id for job in project.adapter.jobs(limit=1000) if job.state is JobState.FAILED}
        assert all(killer.deaths.get(job, 0) >= 3 for job in failed), "only a job whose three deaths we saw may fail"
        lost = storm.missing()
        assert len(lost) <= len(failed), f"lost: {sorted(lost)[:20]}"
        repeats = len(project.effects()) - (storm.enqueued - len(lost))
        assert repeats <= killer.unsettled
        assert percentile(killer.back_after_worker, 0.99) <= 1.0 + _slack(size)
        assert percentile(killer.back_after_supervisor, 0.99) <= 90 * size.scale + _slack(size)
        storm.end()
    finally:
        project.end()
    with capsys.disabled():
        worker, supervisor = killer.back_after_worker, killer.back_after_supervisor
        print(
            f"\n{url.partition(':')[0]}: {size.kills} kills, {storm.enqueued} jobs, lost 0, failed {len(failed)}, "
            f"repeats {repeats} of at most {killer.unsettled}; back after a worker's death "
            f"p50 {percentile(worker, 0.5):.2f} s, p99 {percentile(worker, 0.99):.2f} s; "
            f"after a supervisor's p99 {percentile(supervisor, 0.99):.2f} s"
        )


def _slack(size) -> float:
    """Return what a loaded machine of two cores may add in the quick form, whose times are a twentieth."""
    return 1.0 if size.scale < 1 else 0.0


CLAIMED_COUNTS_AS_STARTED = """
from sapwood.page import Page
from sapwood.pool import Pool

_start, _feed, _take_back = Page.start, Pool.feed, Pool.take_back

def start(self, claim, **deadline):
    if claim not in self._slots:
        _start(self, claim, **deadline)

def feed(self, records):
    for record in records:
        self._page.start(record.claim)
    _feed(self, records)

def take_back(self, **options):
    taken = _take_back(self, **options)
    self._page.clear([record.claim for record in taken])
    return taken

Page.start, Pool.feed, Pool.take_back = start, feed, take_back
"""


def _prefetched(tmp_path, url, size, chance, more=""):
    """Have 1,000 jobs with one try claimed ahead, and workers killed meanwhile.

    Return how many jobs never ran, though no kill hit them, how many kills there were, and the most jobs that a worker
    had noted as started at one of them.
    """
    storm = Storm(tmp_path, url, scale=size.scale, chance=chance, more=more)
    killer = _Killer(storm)
    project = storm.project
    slots = len(STATES) * WORKERS * CONCURRENCY
    try:
        # So that the workers know these jobs are short, and claim ahead.
        storm.add(400, seconds=0.004)
        storm.wait_until_done()
        numbers = range(10_000, 11_000)
        jobs = dict(zip(project.enqueue("effect", *numbers, max_attempts=1, seconds=0.004), numbers, strict=True))
        while len(killer.back_after_worker) < 8:
            wait_until(
                lambda: project.states().get(JobState.RUNNING, 0) > slots or storm.is_done(),
                pause=0.002,
                about="more to be claimed than can run",
            )
            if storm.is_done():
                break
            killer.kill_worker(chance.choice(STATES))
        storm.wait_until_done()
        ran = {number for number, _, _ in project.effects()} | {jobs[job] for job in killer.deaths if job in jobs}
        return len(set(numbers) - ran), len(killer.back_after_worker), killer.most_started
    finally:
        project.end()


def test_jobs_with_one_try_that_were_merely_claimed_all_run(tmp_path, url, size, chance):
    never, kills, started = _prefetched(tmp_path, url, size, chance)
    assert kills > 0
    assert never == 0
    assert started <= CONCURRENCY, "what was merely claimed does not count as started"


def test_a_build_that_counts_the_claimed_as_started_is_found(tmp_path, database_url, size, chance):
    most = 0
    for number in range(5):
        folder = tmp_path / str(number)
        _, _, started = _prefetched(folder, database_url("sqlite"), size, chance, more=CLAIMED_COUNTS_AS_STARTED)
        most = max(most, started)
        if most > CONCURRENCY:
            break
    assert most > CONCURRENCY
