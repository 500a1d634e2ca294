"""Time limits: a job that has had its time ends with a failed try, and nothing else does."""

import asyncio
import logging
import os
import random
import sys
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import text

from background import wait_until
from sapwood import Job, MemoryAdapter, Sapwood, Worker, WorkerGroup, job
from sapwood.adapters.dialects import sqlite
from sapwood.adapters.dialects.sqlite import _Turn
from sapwood.errors import ConfigurationError, JobTimeout
from sapwood.events import JobStuck
from sapwood.limit import ThreadLimit
from sapwood.record import JobState
from sapwood.timing import Timing
from sapwood.worker import Limits, Tally

notes: list[object] = []
opened = threading.Event()
LONG = 60


def spin(seconds: float = LONG) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class Spins(Job, name="limits.spins", max_runtime=0.1):
    def perform(self) -> None:
        try:
            spin()
        except Exception:  # noqa: BLE001 - what many jobs do
            notes.append("swallowed")
        finally:
            notes.append("cleaned up")


class SpinsUnlimited(Job, name="limits.unlimited"):
    def perform(self) -> None:
        spin()


class Sleeps(Job, name="limits.sleeps", max_runtime=timedelta(seconds=0.1)):
    async def perform(self) -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            notes.append("cleaned up")


class Catches(Job, name="limits.catches", max_runtime=0.1, keep=True):
    def perform(self) -> str:
        try:
            spin()
        except JobTimeout:
            return "half of it"
        return "all of it"


class FailsLate(Job, name="limits.fails_late", max_runtime=0.1):
    def perform(self) -> None:
        try:
            spin()
        finally:
            raise ValueError("while cleaning up")


class CancelsItself(Job, name="limits.cancels_itself", max_runtime=LONG):
    async def perform(self) -> None:
        raise asyncio.CancelledError


class Stuck(Job, name="limits.stuck", max_runtime=0.05, queue="stuck"):
    """Waits in C until the test lets it go: no exception gets there."""

    def perform(self) -> None:
        notes.append("begun")
        opened.wait(LONG)


class Quick(Job, name="limits.quick", max_runtime=LONG):
    def perform(self) -> None:
        notes.append("quick")


@pytest.fixture
def app():
    notes.clear()
    opened.clear()
    app = Sapwood(MemoryAdapter(), timing=Timing(grace=LONG))
    yield app
    opened.set()
    app.close()


def left(app):
    (record,) = app.adapter().jobs()
    return record


@pytest.mark.parametrize("late", [Spins, Sleeps])
def test_a_job_that_has_had_its_time_has_failed_a_try_and_nobody_has_died(app, late):
    late.perform_later()
    assert Worker(app).workoff() == Tally(retried=1)
    record = left(app)
    assert (record.state, record.attempts, record.deaths, record.alone) == (JobState.SCHEDULED, 1, 0, False)
    assert record.last_error == "timeout: not finished within 0.1 s"
    assert record.run_at > record.created_at + timedelta(seconds=1), "the backoff holds"
    assert notes == ["cleaned up"]


def test_a_last_try_that_has_had_its_time_has_failed_for_good(app):
    class Last(Spins, name="limits.last", max_attempts=1):
        pass

    Last.perform_later()
    assert Worker(app).workoff() == Tally(failed=1)
    assert (left(app).state, left(app).last_error) == (JobState.FAILED, "timeout: not finished within 0.1 s")
    assert "spin()" in app.adapter().attempts(left(app).id)[0].traceback


def test_a_job_that_catches_the_end_of_its_time_may_return_what_it_has(app):
    Catches.perform_later()
    assert Worker(app).workoff() == Tally(succeeded=1)
    assert left(app).result == '"half of it"'


def test_whatever_a_job_raises_once_its_time_is_over_is_a_timeout(app):
    FailsLate.perform_later()
    Worker(app).workoff()
    assert left(app).last_error == "timeout: not finished within 0.1 s"
    assert "while cleaning up" in app.adapter().attempts(left(app).id)[0].traceback


def test_a_job_that_is_cancelled_by_somebody_else_has_not_timed_out(app):
    CancelsItself.perform_later()
    Worker(app).workoff()
    assert left(app).last_error == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("raised", [JobTimeout("my own"), TimeoutError("theirs")])
def test_a_job_that_raises_such_a_thing_by_itself_has_failed_by_itself(app, raised):
    @job(name="limits.own", max_runtime=LONG)
    def own() -> None:
        raise raised

    own.perform_later()
    Worker(app).workoff()
    assert not left(app).last_error.startswith("timeout")


def test_the_limit_of_a_worker_is_for_classes_that_have_none(app):
    SpinsUnlimited.perform_later()
    Worker(app, limits=Limits(max_runtime=0.2)).workoff()
    assert left(app).last_error == "timeout: not finished within 0.2 s"
    app.adapter().clear()
    Spins.perform_later()
    Worker(app, limits=Limits(max_runtime=LONG)).workoff()
    assert left(app).last_error == "timeout: not finished within 0.1 s"


def test_a_limit_does_not_hold_inline():
    class Inline(Job, name="limits.inline", max_runtime=0.001, isolated=True):
        def perform(self) -> str:
            spin(0.05)
            return "done"

    assert Inline.perform_now() == "done"


@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan"), float("inf"), timedelta(0)])
def test_a_limit_that_is_no_length_of_time_is_refused(value):
    with pytest.raises(ConfigurationError, match="max_runtime"):
        type("Bad", (Job,), {"max_runtime": value, "perform": lambda self: None})
    with pytest.raises(ConfigurationError, match="max_runtime"):
        WorkerGroup(max_runtime=value)


def test_a_job_that_does_not_end_keeps_its_slot_in_an_application_and_fails_when_it_does(database, caplog):
    app = Sapwood(database, timing=Timing(grace=0.05, drain=0.05))
    notes.clear()
    opened.clear()
    worker = Worker(app, concurrency=2)
    thread = threading.Thread(target=worker.run)
    with caplog.at_level(logging.ERROR, logger="sapwood"):
        thread.start()
        try:
            stuck = Stuck.perform_later()
            wait_until(lambda: "cannot be stopped" in caplog.text)
            for _ in range(5):
                Quick.perform_later()
            wait_until(lambda: notes.count("quick") == 5)
            assert stuck.state is JobState.RUNNING
            opened.set()
            wait_until(lambda: stuck.state is JobState.SCHEDULED)
        finally:
            opened.set()
            worker.stop()
            thread.join(30)
    assert stuck.record.last_error == "timeout: not finished within 0.05 s"
    assert stuck.record.deaths == 0
    assert caplog.text.count("cannot be stopped") == 1
    app.close()


# --- the exception in a thread --------------------------------------------------------------------------------------


def test_what_was_asked_before_it_began_does_not_begin():
    limit = ThreadLimit(1)
    limit.ask()
    with pytest.raises(JobTimeout):
        limit.call(lambda: notes.append("ran"))
    assert "ran" not in notes


def test_what_is_asked_after_the_end_of_a_run_never_arrives():
    limit = ThreadLimit(1)
    assert limit.call(lambda: 1) == 1
    limit.ask()
    spin(0.01)
    assert not limit.expired


def test_an_exception_that_comes_at_the_very_end_of_a_run_stays_in_it():
    """Asked at every moment around the end: it is raised in perform, or not at all, and never twice."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    chance = random.Random(20_261_125)
    returned = raised = 0
    try:
        for _ in range(400):
            limit = ThreadLimit(1)
            start = threading.Event()
            asker = threading.Thread(target=_ask_after, args=(limit, start, chance.random() * 4e-4))
            asker.start()
            try:
                limit.call(lambda start=start: (start.set(), spin(2e-4)))
                returned += 1
            except JobTimeout:
                raised += 1
                assert limit.expired
            # Whatever is still under way would arrive here, and fail the test.
            asker.join()
            spin(1e-5)
    finally:
        sys.setswitchinterval(interval)
    assert returned
    assert raised


def _ask_after(limit: ThreadLimit, start: threading.Event, seconds: float) -> None:
    start.wait(10)
    spin(seconds)
    limit.ask()


def test_an_exception_that_arrives_while_the_end_is_noted_is_swallowed_and_the_value_stands(monkeypatch):
    limit = ThreadLimit(1)
    disarm = limit._disarm
    arrived = []

    def interrupted() -> None:
        if not arrived:
            arrived.append("once")
            limit.ask()
            spin(0.05)
        disarm()

    monkeypatch.setattr(limit, "_disarm", interrupted)
    assert limit.call(lambda: "done") == "done"
    assert limit.expired
    spin(0.01)


def test_one_that_has_had_its_time_while_it_waited_for_its_turn_leaves_it_to_others(monkeypatch):
    monkeypatch.setattr(sqlite, "_SLICE", 60)
    turn, limit, ends = _Turn(), ThreadLimit(1), []

    def late():
        try:
            limit.call(lambda: wait(30, spin))
        except JobTimeout:
            ends.append("late")

    def wait(seconds, then):
        with turn.held(seconds) as is_mine:
            assert is_mine
            then()

    threads = [
        threading.Thread(target=late),
        # It would be told last, by the one who has left, or never.
        threading.Thread(target=wait, args=(30, lambda: ends.append("next"))),
    ]
    with turn.held(0) as is_mine:
        assert is_mine
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda number=number: len(turn._free._waiters) > number, about="it to wait")
        limit.ask()
    for thread in threads:
        thread.join(15)
    assert sorted(ends) == ["late", "next"]
    with turn.held(0) as is_mine:
        assert is_mine


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_job_has_forked_does_not_end_its_limit():
    heard, told = os.pipe()
    limit = ThreadLimit(60)
    limit.over = lambda: os.write(told, f"{os.getpid()} ".encode())
    child = limit.call(os.fork)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    os.close(told)
    assert os.read(heard, 100).split() == [str(os.getpid()).encode()]
    os.close(heard)


def test_a_commit_that_takes_long_is_no_overrun(database, monkeypatch):
    class Commits(Job, name="limits.commits", transactional=True, max_runtime=0.2):
        def perform(self) -> None:
            self.context.connection.execute(text("SELECT 1"))

    app = Sapwood(database, timing=Timing().scaled(1 / 100))
    stuck, settle = [], app.adapter()._settle_within
    app.events.listen(lambda event: stuck.append(event) if isinstance(event, JobStuck) else None)

    def slowly(*args):
        threading.Event().wait(1)
        return settle(*args)

    monkeypatch.setattr(app.adapter(), "_settle_within", slowly)
    Commits.perform_later()
    assert Worker(app).workoff().succeeded == 1
    assert stuck == []
    app.close()


def test_a_job_is_asked_once_only():
    limit = ThreadLimit(1)
    caught = []

    def stubborn() -> None:
        for _ in range(3):
            try:
                limit.ask()
                spin(0.01)
            except JobTimeout:
                caught.append("asked")

    limit.call(stubborn)
    assert caught == ["asked"]
