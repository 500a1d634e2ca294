"""Who is dead, judged by one observer's own clock."""

from msgspec.structs import replace

from conftest import worker_record
from sapwood.adapters.memory import MemoryAdapter
from sapwood.lifecycle import Trace
from sapwood.maintenance import BeatWatch, rescue_dead
from sapwood.record import JobDraft, JobState
from sapwood.timing import Timing, Trust, boot_time

TIMING = Timing(beat=10, look=10, rescue=60, gap=20, fence=40)


def watched(*, until: float, beats=lambda at: 0, gap_from: float | None = None) -> list[float]:
    """Return the moments at which a worker was called dead, looked at every 10 seconds."""
    watch = BeatWatch(TIMING)
    called = []
    at = 0.0
    while at <= until:
        if gap_from is None or not gap_from <= at < gap_from + 30:
            watch.beaten(at=at)
        if watch.still([replace(worker_record("w"), beat=beats(at))], at=at):
            called.append(at)
        at += 10
    return called


def test_a_beat_that_stands_still_for_a_minute_proves_a_death():
    assert watched(until=70) == [60, 70]


def test_a_beat_that_rises_proves_life():
    assert watched(until=600, beats=lambda at: int(at // 50)) == []


def test_an_observer_that_was_cut_off_begins_to_watch_anew():
    assert watched(until=130, gap_from=30) == [110 + 10, 130]


def test_an_observer_that_never_beat_calls_nobody_dead():
    watch = BeatWatch(TIMING)
    for at in range(0, 300, 10):
        assert watch.still([worker_record("w")], at=at) == ()


def test_trust_lasts_for_the_fence_after_a_good_beat_was_begun():
    trust = Trust(TIMING)
    assert not trust.holds(at=0)
    trust.beaten(5)
    assert [trust.holds(at=at) for at in (5, 44.9, 45)] == [True, True, False]


def test_an_older_beat_that_is_heard_of_later_takes_no_trust_away():
    trust = Trust(TIMING, 20)
    trust.beaten(10)
    assert trust.holds(at=59)


def test_trust_ends_once_and_a_good_beat_restores_it():
    trust = Trust(TIMING)
    assert not trust.has_ended(at=100)
    trust.beaten(100)
    assert [trust.has_ended(at=at) for at in (139, 140, 150)] == [False, True, False]
    trust.beaten(151)
    assert trust.holds(at=151)


def test_the_clock_of_durations_rises():
    assert boot_time() <= boot_time()


def test_the_jobs_of_a_worker_that_stands_still_are_taken_back():
    adapter = MemoryAdapter()
    adapter.enqueue([JobDraft(job="m:J", args="{}")])
    adapter.register(worker_record("dead"))
    adapter.register(worker_record("me"))
    adapter.claim("dead", limit=1)
    watch = BeatWatch(TIMING)
    found = []
    for at in range(0, 70, 10):
        watch.beaten(at=at)
        found.extend(rescue_dead(adapter, watch, mine={"me"}, clock=lambda at=at: at))
    ((worker, (record,)),) = found
    assert (worker, record.state, record.deaths, record.attempts) == ("dead", JobState.READY, 1, 0)
    assert [worker.id for worker in adapter.workers()] == ["me"]


def test_a_slow_look_makes_no_beat_seem_older_than_it_is():
    class Slow(MemoryAdapter):
        def workers(self):
            self.moment += self.takes
            return super().workers()

    adapter = Slow()
    adapter.register(worker_record("w"))
    watch = BeatWatch(TIMING)
    found = {}
    for at, adapter.takes in ((0, 15), (20, 0), (40, 0), (60, 0), (75, 0)):
        adapter.moment = at
        watch.beaten(at=at)
        found[at] = rescue_dead(adapter, watch, mine=(), clock=lambda: adapter.moment)
    assert [at for at in found if found[at]] == [75]


def test_the_notes_of_a_worker_whose_death_is_proven_are_used(adapter):
    class Proven(type(adapter)):
        def is_dead(self, worker):
            return worker.id == "dead"

        def notes(self, worker):
            return {(1, 1): Trace.ENDED_WELL}

    adapter.__class__ = Proven
    adapter.enqueue([JobDraft(job="m:J", args="{}")])
    adapter.register(worker_record("dead"))
    adapter.register(worker_record("me"))
    adapter.claim("dead", limit=1)
    ((_, (record,)),) = rescue_dead(adapter, BeatWatch(TIMING), mine={"me"}, clock=lambda: 0)
    assert (record.deaths, record.attempts) == (0, 0)


def test_jobs_under_no_worker_are_taken_back(adapter):
    adapter.enqueue([JobDraft(job="m:J", args="{}")])
    adapter.register(worker_record("gone"))
    adapter.claim("gone", limit=1)
    with adapter._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM background_workers")
    ((worker, (record,)),) = rescue_dead(adapter, BeatWatch(TIMING), mine={"me"}, clock=lambda: 0)
    assert (worker, record.state) == ("", JobState.READY)
