"""A worker: what it claims, how it settles, and what it does when something goes wrong."""

import asyncio
import contextvars
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from conftest import until, worker_record
from sapwood import Job, MemoryAdapter, Sapwood, Worker, enqueue_all, job
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import ConfigurationError, StoreUnavailable, UnknownAdapter, UnknownQueue
from sapwood.events import CodeChanged, JobFenced, JobsReleased, StoreFailed, WorkerFenced, WorkerRescued
from sapwood.lifecycle import Trace
from sapwood.maintenance import Timing
from sapwood.pool import MOST_UNWRITTEN
from sapwood.record import JobDraft, JobState
from sapwood.worker import Limits, LookAhead, Tally, _Bell

PROGRAMS = Path(__file__).parent / "programs"


class Note(Job, name="worker.note"):
    notes: ClassVar[list[object]] = []

    def perform(self, what: str) -> None:
        Note.notes.append(what)


class NoteAsync(Job, name="worker.note_async"):
    async def perform(self, what: str) -> None:
        await asyncio.sleep(0)
        Note.notes.append(what)


class Fails(Job, name="worker.fails", max_attempts=2):
    def perform(self) -> None:
        raise ValueError("bad luck")

    def backoff(self, attempt: int) -> float:
        return 0


class Gate(Job, name="worker.gate"):
    """Holds its slot until the test lets it go."""

    opened: threading.Event
    entered: threading.Semaphore

    def perform(self) -> None:
        Gate.entered.release()
        assert Gate.opened.wait(20)


@pytest.fixture(params=["memory", "sqlite"])
def app(request, database):
    Note.notes = []
    Gate.opened, Gate.entered = threading.Event(), threading.Semaphore(0)
    adapter = MemoryAdapter() if request.param == "memory" else SQLAlchemyAdapter(database)
    app = Sapwood(adapter)
    yield app
    app.close()


@pytest.fixture
def running(app):
    """Start workers in threads; stop them at the end."""
    started = []

    def start(**options) -> Worker:
        worker = Worker(app, **options)
        thread = threading.Thread(target=worker.run)
        thread.start()
        started.append((worker, thread))
        return worker

    yield start
    Gate.opened.set()
    for worker, thread in started:
        worker.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_workoff_runs_what_is_ready_and_leaves_what_is_not_due(app):
    Note.perform_later("a")
    NoteAsync.perform_later("b")
    Note.set(wait=3600).perform_later("later")
    assert Worker(app).workoff() == Tally(succeeded=2)
    assert sorted(Note.notes) == ["a", "b"]
    (left,) = app.adapter().jobs()
    assert left.state is JobState.SCHEDULED
    assert app.adapter().workers() == []


def test_jobs_run_in_the_order_of_their_priority(app):
    for priority in (50, 1, 100, 20):
        Note.set(priority=priority).perform_later(str(priority))
    Worker(app, concurrency=1).workoff()
    assert Note.notes == ["1", "20", "50", "100"]


def test_synchronous_and_asynchronous_jobs_take_turns_in_order(app):
    for number in range(20):
        (NoteAsync if number % 2 else Note).perform_later(str(number))
    Worker(app, concurrency=1).workoff()
    assert Note.notes == [str(number) for number in range(20)]


def test_a_job_enqueued_by_a_job_is_worked_off_too(app):
    @job(name="worker.chain")
    def chain(left: int) -> None:
        Note.notes.append(left)
        if left:
            chain.perform_later(left - 1)

    chain.perform_later(5)
    assert Worker(app).workoff().succeeded == 6
    assert Note.notes == [5, 4, 3, 2, 1, 0]


def test_a_failing_job_is_tried_again_and_then_failed_with_its_history(app):
    Fails.perform_later()
    assert Worker(app).workoff() == Tally(retried=1, failed=1)
    (record,) = app.adapter().jobs()
    assert (record.state, record.attempts, record.last_error) == (JobState.FAILED, 2, "ValueError: bad luck")
    history = app.adapter().attempts(record.id)
    assert [(line.attempt, line.error) for line in history] == [
        (1, "ValueError: bad luck"),
        (2, "ValueError: bad luck"),
    ]
    assert all("raise ValueError" in line.traceback for line in history)


def test_a_kept_job_leaves_its_result(app):
    @job(name="worker.kept", keep=True)
    def kept(n: int) -> int:
        return n + 1

    handle = kept.perform_later(41)
    Worker(app).workoff()
    assert (handle.result(timeout=1), handle.state) == (42, JobState.SUCCEEDED)


def test_a_worker_takes_only_its_queues(app):
    Note.set(queue="email").perform_later("mail")
    Note.set(queue="media").perform_later("picture")
    Note.perform_later("rest")
    Worker(app, queues=["email", "media"]).workoff()
    assert sorted(Note.notes) == ["mail", "picture"]


def test_no_more_than_concurrency_run_at_once(app):
    lock = threading.Lock()
    running, most = 0, 0

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def leave() -> None:
        nonlocal running
        with lock:
            running -= 1

    @job(name="worker.sync_slot")
    def slot() -> None:
        enter()
        time.sleep(0.001)
        leave()

    @job(name="worker.async_slot")
    async def aslot() -> None:
        enter()
        await asyncio.sleep(0.001)
        leave()

    enqueue_all([slot.build() if number % 3 else aslot.build() for number in range(300)])
    assert Worker(app, concurrency=4).workoff().succeeded == 300
    assert most == 4


def test_a_job_is_picked_up_well_within_a_second(app, running):
    running(poll_interval=60)
    until(app.adapter(), app.adapter().workers)
    began = time.monotonic()
    Note.perform_later("now")
    until(app.adapter(), lambda: not app.adapter().jobs())
    assert Note.notes == ["now"]
    assert time.monotonic() - began < 10, "a wake-up, not the poll"


def test_a_scheduled_job_runs_when_it_is_due(app, running):
    running(poll_interval=0.05)
    Note.set(wait=0.2).perform_later("later")
    until(app.adapter(), lambda: not app.adapter().jobs())
    assert Note.notes == ["later"]


def test_a_stop_lets_what_runs_finish_and_gives_back_the_rest(app, running):
    enqueue_all([Gate.build() for _ in range(5)])
    worker = running(concurrency=2)
    for _ in range(2):
        assert Gate.entered.acquire(timeout=10)
    worker.stop()
    Gate.opened.set()
    until(app.adapter(), lambda: not app.adapter().workers())
    assert worker.tally == Tally(succeeded=2)
    assert [(job.state, job.attempts) for job in app.adapter().jobs()] == [(JobState.READY, 0)] * 3


def test_jobs_are_claimed_one_per_slot_until_their_run_time_is_known(app, running):
    enqueue_all([Gate.build() for _ in range(50)])
    running(concurrency=3)
    for _ in range(3):
        assert Gate.entered.acquire(timeout=10)
    assert sum(job.state is JobState.RUNNING for job in app.adapter().jobs()) == 3


def test_what_was_claimed_ahead_and_waits_is_handed_back(app, running):
    enqueue_all([Note.build(str(number)) for number in range(40)])
    enqueue_all([Gate.set(priority=60).build() for _ in range(3)])
    enqueue_all([Note.set(priority=70).build("behind") for _ in range(200)])
    told = []
    app.events.listen(told.append)
    running(concurrency=1)
    assert Gate.entered.acquire(timeout=10)
    until(app.adapter(), lambda: sum(job.state is JobState.RUNNING for job in app.adapter().jobs(limit=1000)) == 1)
    handed = [record for event in told if isinstance(event, JobsReleased) for record in event.records]
    assert handed, "it had claimed ahead"
    assert len(handed) == len({record.id for record in handed}), "and does not claim them again at once"
    assert all(job.attempts == 0 for job in app.adapter().jobs(limit=1000) if job.state is JobState.READY)


def test_jobs_of_a_dead_worker_are_taken_back_at_the_start(app):
    Note.perform_later("rescued")
    adapter = app.adapter()
    adapter.register(worker_record("dead"))
    adapter.claim("dead", limit=1)
    adapter.is_dead = lambda worker: worker.id == "dead"
    adapter.notes = lambda worker: {}
    told = []
    app.events.listen(told.append)
    assert Worker(app).workoff().succeeded == 1
    assert [event.worker for event in told if isinstance(event, WorkerRescued)] == ["dead"]


def test_a_job_that_a_death_has_set_apart_runs_alone_when_the_worker_is_idle(app):
    Gate.opened.set()
    adapter = app.adapter()
    (first,) = adapter.enqueue([JobDraft(job="worker.note", args='{"what": "apart"}')])
    adapter.register(worker_record("dead"))
    (record,) = adapter.claim("dead", limit=1).claimed
    adapter.rescue("dead", notes={(record.id, record.lock_token): Trace.STARTED})
    assert adapter.get(first).alone
    enqueue_all([Note.build("others") for _ in range(30)])
    assert Worker(app, concurrency=3).workoff().succeeded == 31
    assert Note.notes[-1] == "apart"


# --- trouble ----------------------------------------------------------------------------------------------------------


def failing(adapter, verb: str, errors: list) -> None:
    """Let a verb raise these errors first; ``after`` it has done its work where the error says so."""
    original = getattr(adapter, verb)

    def act(*args, **kwargs):
        if errors and (errors[0][0](*args, **kwargs)):
            _, error, after = errors.pop(0)
            if after:
                original(*args, **kwargs)
            raise error
        return original(*args, **kwargs)

    setattr(adapter, verb, act)


def claims(*args, limit, **kwargs) -> bool:
    return limit > 0


def settles(worker, settlements, **kwargs) -> bool:
    return bool(settlements)


def test_a_lost_answer_to_a_claim_is_resolved(app, running):
    Note.perform_later("once")
    failing(app.adapter(), "exchange", [(claims, StoreUnavailable("the answer is lost"), True)])
    told = []
    app.events.listen(told.append)
    running(poll_interval=0.01, timing=Timing(beat=0.05, look=0.05))
    until(app.adapter(), lambda: not app.adapter().jobs())
    assert Note.notes == ["once"]
    assert [event.error.what for event in told if isinstance(event, StoreFailed)] == ["the answer is lost"]


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_a_lost_answer_to_an_outcome_repeats_the_outcome_and_never_the_job(app, written):
    Note.perform_later("once")
    failing(app.adapter(), "exchange", [(settles, StoreUnavailable("the answer is lost"), written)])
    told = []
    app.events.listen(told.append)
    Worker(app, poll_interval=0.01).workoff()
    assert Note.notes == ["once"]
    assert app.adapter().jobs() == []
    assert not [event for event in told if isinstance(event, JobFenced)]


def test_an_outcome_that_cannot_be_written_holds_no_other_hostage(app):
    @job(name="worker.poison")
    def poison() -> None:
        Note.notes.append("poison")

    adapter = app.adapter()
    enqueue_all([Note.build(str(number)) for number in range(5)])
    guilty = poison.perform_later()
    for verb in ("exchange", "settle"):
        original = getattr(adapter, verb)

        def refusing(worker, settlements, original=original, **kwargs):
            if any(s.record.id == guilty.id and type(s.outcome).__name__ == "Succeeded" for s in settlements):
                raise ValueError("this outcome cannot be written")
            return original(worker, settlements, **kwargs)

        setattr(adapter, verb, refusing)
    Worker(app, poll_interval=0.01).workoff()
    assert sorted(Note.notes) == ["0", "1", "2", "3", "4", "poison"], "each ran once"
    (left,) = adapter.jobs()
    assert (left.id, left.state) == (guilty.id, JobState.FAILED)
    assert "this outcome cannot be written" in left.last_error


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")], ids=["memory", "descriptors"])
def test_a_worker_that_lacks_something_for_a_moment_blames_no_outcome(app, error):
    Note.perform_later("once")
    for verb in ("exchange", "settle"):
        failing(app.adapter(), verb, [(settles, error, False)])
    tally = Worker(app, poll_interval=0.01).workoff()
    assert (Note.notes, tally.succeeded, app.adapter().jobs()) == (["once"], 1, [])


def test_an_event_loop_for_which_there_is_no_thread_is_made_later(app, monkeypatch, caplog):
    start, refused = threading.Thread.start, []

    def starting(thread: threading.Thread) -> None:
        if thread.name == "sapwood-loop" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starting)
    NoteAsync.perform_later("once")
    Worker(app, poll_interval=0.01).workoff()
    assert Note.notes == ["once"]
    assert "no thread can be started" in caplog.text


def test_a_worker_that_was_declared_dead_goes_on_under_a_new_id(app, running):
    told = []
    app.events.listen(told.append)
    adapter = app.adapter()
    Gate.perform_later()
    running(poll_interval=0.01, timing=Timing(beat=0.05, look=3600))
    assert Gate.entered.acquire(timeout=10)
    (before,) = adapter.workers()
    adapter.rescue(before.id, notes={})
    until(adapter, lambda: [worker for worker in adapter.workers() if worker.id != before.id])
    assert Gate.entered.acquire(timeout=10), "the job runs again, under the new id"
    Gate.opened.set()
    until(adapter, lambda: not adapter.jobs())
    until(adapter, lambda: any(isinstance(event, JobFenced) for event in told))
    assert any(isinstance(event, WorkerFenced) for event in told)


def test_a_worker_outlives_a_store_that_is_away(app):
    Note.perform_later("after")
    always = lambda *args, **kwargs: True  # noqa: E731
    failing(app.adapter(), "exchange", [(always, StoreUnavailable("away"), False) for _ in range(3)])
    assert Worker(app, poll_interval=0.01).workoff() == Tally(succeeded=1)


def test_with_a_thousand_outcomes_unwritten_nothing_new_is_started(app):
    enqueue_all([Note.build("x") for _ in range(3 * MOST_UNWRITTEN)])
    adapter, most = app.adapter(), 0
    original = adapter.exchange

    def counting(worker, settlements, **kwargs):
        nonlocal most
        most = max(most, len(settlements))
        return original(worker, settlements, **kwargs)

    adapter.exchange = counting
    assert Worker(app).workoff().succeeded == 3 * MOST_UNWRITTEN
    assert most <= MOST_UNWRITTEN + 5


def test_a_claim_that_keeps_failing_holds_no_outcome_back(app, running):
    adapter = app.adapter()
    original = adapter.exchange
    broken = threading.Event()

    def failing_claims(worker, settlements, *, limit, **kwargs):
        if settlements and not broken.is_set():
            broken.set()
        if broken.is_set():
            raise StoreUnavailable("the claim waits for a lock")
        return original(worker, settlements, limit=limit, **kwargs)

    adapter.exchange = failing_claims
    Note.perform_later("done")
    running(poll_interval=0.01)
    until(adapter, lambda: not adapter.jobs())
    assert Note.notes == ["done"]


@pytest.mark.parametrize("how", ["result", "backoff"])
def test_code_of_the_job_that_runs_after_perform_cannot_end_its_slot(app, how):
    class Odd:
        def __iter__(self):
            raise SystemExit("after perform")

    @job(name="worker.odd_end", keep=True)
    def odd_result() -> object:
        return Odd()

    class OddBackoff(Job, name="worker.odd_backoff", max_attempts=2):
        def perform(self) -> None:
            raise ValueError

        def backoff(self, attempt: int) -> float:
            raise SystemExit("after perform")

    (odd_result if how == "result" else OddBackoff).perform_later()
    Note.perform_later("after")
    Worker(app, concurrency=1, poll_interval=0.01).workoff()
    assert Note.notes == ["after"]
    assert not [job for job in app.adapter().jobs() if job.state is JobState.RUNNING]


def test_a_worker_may_be_used_again(app):
    worker = Worker(app)
    for number in range(3):
        Note.perform_later(str(number))
        worker.workoff()
    assert Note.notes == ["0", "1", "2"]
    assert worker.tally.succeeded == 3


def test_a_worker_that_cannot_beat_starts_nothing_more(app, running):
    adapter = app.adapter()
    enqueue_all([Gate.build() for _ in range(2)])
    beat = adapter.beat
    adapter.beat = lambda *args, **kwargs: (_ for _ in ()).throw(StoreUnavailable("cut off"))
    worker = running(concurrency=1, poll_interval=0.01, timing=Timing(beat=0.01, look=0.01, fence=0.2))
    until(adapter, lambda: not worker._keeper.is_trusted())
    before = Gate.entered._value
    Note.perform_later("not yet")
    Gate.opened.set()
    until(adapter, lambda: worker._outage._failures > 3)
    assert (Gate.entered._value, Note.notes) == (before, [])
    adapter.beat = beat
    until(adapter, lambda: not adapter.jobs())
    assert Note.notes == ["not yet"]


def test_what_a_job_sets_in_its_context_is_gone_for_the_next(app):
    variable = contextvars.ContextVar("variable", default="clean")

    @job(name="worker.context")
    def leaks() -> None:
        Note.notes.append(variable.get())
        variable.set("dirty")

    enqueue_all([leaks.build() for _ in range(5)])
    Worker(app, concurrency=1).workoff()
    assert Note.notes == ["clean"] * 5


def test_a_signal_may_ring_while_the_worker_rests_or_rings():
    bell = _Bell()
    rung = []

    def handler(number, frame):
        bell.ring()
        rung.append(number)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        while len(rung) < 500:
            bell.ring()
            bell.wait(0.001)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- declared wrongly -------------------------------------------------------------------------------------------------


def test_a_worker_that_makes_no_sense_is_refused(database):
    app = Sapwood(database, queues=["default", "email"])
    with pytest.raises(UnknownQueue, match=r"did you mean .?email"):
        Worker(app, queues=["emial"])
    with pytest.raises(UnknownAdapter):
        Worker(app, adapter="audit")
    for options in ({"concurrency": 0}, {"poll_interval": 0}):
        with pytest.raises(ConfigurationError):
            Worker(app, **options)


# --- look-ahead -------------------------------------------------------------------------------------------------------


def test_the_look_ahead_follows_the_95th_percentile_of_each_queue():
    from test_executor import record

    ahead = LookAhead(concurrency=4)
    mail, media = record("j", queue="mail"), record("j", queue="media")
    ahead.claimed([mail])
    assert ahead.jobs() == 0, "nothing is known"
    for _ in range(9):
        ahead.ran("mail", 0.01)
    ahead.claimed([mail])
    assert ahead.jobs() == 0, "too little is known"
    ahead.ran("mail", 0.01)
    ahead.claimed([mail])
    assert ahead.jobs() == 40, "4 slots, 0.1 s, 10 ms each"
    ahead.claimed([mail, media])
    assert ahead.jobs() == 0, "nothing is known of the other queue"
    ahead.claimed([mail])
    ahead.ran("mail", 0.2)
    assert ahead.jobs() == 0, "a job overran"
    for _ in range(100):
        ahead.ran("mail", 0.000001)
    ahead.claimed([mail])
    assert ahead.jobs() == 1000, "never more than that"


# --- processes --------------------------------------------------------------------------------------------------------


def process(database: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, PROGRAMS / "signal_worker.py", database, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_finishes_what_runs(adapter, database, number):
    adapter.enqueue([JobDraft(job="signal.gate", args="{}")] * 3)
    with process(database) as worker:
        assert worker.stdout.readline() == "started\n"
        worker.send_signal(number)
        assert worker.stdout.readline() == "stopping\n"
        worker.stdin.write("go on\n")
        worker.stdin.flush()
        assert worker.wait(20) == 0
    assert [(job.state, job.attempts) for job in adapter.jobs()] == [(JobState.READY, 0)] * 2
    assert adapter.workers() == []


def test_a_second_interrupt_ends_the_process_and_the_rows_come_back_with_their_tries(adapter, database):
    adapter.enqueue([JobDraft(job="signal.gate", args="{}")] * 3)
    with process(database) as worker:
        assert worker.stdout.readline() == "started\n"
        worker.send_signal(signal.SIGINT)
        assert worker.stdout.readline() == "stopping\n"
        worker.send_signal(signal.SIGINT)
        assert worker.wait(20) == 128 + signal.SIGINT
    (dead,) = adapter.workers()
    assert adapter.is_dead(dead)
    (record,) = adapter.rescue(dead.id, notes=adapter.notes(dead))
    assert (record.state, record.attempts, record.deaths) == (JobState.READY, 0, 0)
    assert not [job for job in adapter.jobs() if job.state is JobState.RUNNING]


def test_what_does_not_finish_in_time_ends_with_the_process_and_keeps_its_try(adapter, database):
    adapter.enqueue([JobDraft(job="signal.gate", args="{}")])
    with process(database, "0.2") as worker:
        assert worker.stdout.readline() == "started\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 128 + signal.SIGTERM
    (dead,) = adapter.workers()
    (record,) = adapter.rescue(dead.id, notes=adapter.notes(dead))
    assert (record.state, record.attempts, record.deaths) == (JobState.READY, 0, 0)


def test_a_worker_in_a_thread_waits_for_what_does_not_finish_and_says_so(app, running, caplog):
    Gate.perform_later()
    worker = running(limits=Limits(shutdown_timeout=0))
    assert Gate.entered.acquire(timeout=20)
    worker.stop()
    until(app.adapter(), lambda: "a thread cannot be ended" in caplog.text)
    Gate.opened.set()
    until(app.adapter(), lambda: app.adapter().workers() == [])
    assert worker.tally == Tally(succeeded=1)


def test_a_worker_ends_after_the_runs_that_it_may_do(app):
    for number in range(5):
        Note.perform_later(str(number))
    worker = Worker(app, concurrency=1, limits=Limits(max_jobs=2))
    assert worker.run().succeeded == 2
    assert app.adapter().counts() == {("default", JobState.READY): 3}
    assert [job.lock_token for job in app.adapter().jobs()] == [0, 0, 0], "the others were not even claimed"


def test_a_worker_that_has_had_its_runs_ends_though_the_claim_with_its_last_outcome_failed(app, running):
    for number in range(2):
        Note.perform_later(str(number))
    failing(app.adapter(), "exchange", [(settles, StoreUnavailable("the claim waits for a lock"), False)])
    running(concurrency=1, poll_interval=0.01, limits=Limits(max_jobs=1))
    until(app.adapter(), lambda: Note.notes == ["0"] and app.adapter().workers() == [])
    assert app.adapter().counts() == {("default", JobState.READY): 1}


def test_a_worker_ends_when_it_has_grown_too_large(app):
    Note.perform_later("a")
    assert Worker(app, limits=Limits(max_memory=1)).run().succeeded <= 1
    assert app.adapter().workers() == []


def test_a_quiet_worker_finishes_what_runs_and_claims_no_more(app, running):
    Gate.perform_later()
    worker = running(concurrency=1)
    assert Gate.entered.acquire(timeout=20)
    worker.quiet()
    Note.perform_later("later")
    Gate.opened.set()
    until(app.adapter(), lambda: worker.tally.succeeded == 1)
    assert [job.state for job in app.adapter().jobs()] == [JobState.READY]
    assert worker.running() == []
    assert len(app.adapter().workers()) == 1


def test_a_worker_tells_once_that_the_code_of_its_jobs_has_changed(app, running, tmp_path, monkeypatch):
    module = tmp_path / f"changing_{id(app)}.py"
    module.write_text("from sapwood import Job\nclass Changing(Job):\n    def perform(self) -> None: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(module.stem)
    told = []
    app.events.listen(lambda event: told.append(event) if isinstance(event, CodeChanged) else None)
    looks = threading.Semaphore(0)
    beat = app.adapter().beat
    monkeypatch.setattr(app.adapter(), "beat", lambda workers: looks.release() or beat(workers))
    running(timing=Timing(beat=0.01, look=0.01))
    for _ in range(3):
        assert looks.acquire(timeout=20)
    assert told == []
    os.utime(module, ns=(1, 1))
    for _ in range(5):
        assert looks.acquire(timeout=20)
    assert told == [CodeChanged((str(module),))]


def test_signals_are_the_applications_again_after_the_worker(app):
    before = signal.getsignal(signal.SIGINT)
    Worker(app).workoff()
    assert signal.getsignal(signal.SIGINT) is before
