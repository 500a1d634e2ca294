"""What may run only once: marked just before it begins, and never begun again by anybody but an operator."""

import asyncio
import threading
from typing import ClassVar

import pytest

from conftest import worker_record
from sapwood import Executor, Job, MemoryAdapter, Sapwood, Worker
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import ConfigurationError, StoreUnavailable
from sapwood.events import JobFenced, StoreFailed
from sapwood.lifecycle import STARTED_ONCE, Failed, Failure, Retried, Trace
from sapwood.record import JobState


class Once(Job, name="once.once", delivery="at_most_once"):
    ran: ClassVar[list[object]] = []
    fails: ClassVar[bool] = False

    def perform(self) -> None:
        Once.ran.append(self.context.job_id)
        if Once.fails:
            raise ValueError("in the middle")

    def backoff(self, attempt: int) -> float:
        return 0


class OnceAsync(Job, name="once.async", delivery="at_most_once"):
    async def perform(self) -> None:
        Once.ran.append(self.context.job_id)


class Often(Job, name="once.often"):
    def perform(self) -> None:
        Once.ran.append(self.context.job_id)


@pytest.fixture(params=["memory", "sqlite"])
def app(request, database):
    Once.ran, Once.fails = [], False
    app = Sapwood(MemoryAdapter() if request.param == "memory" else SQLAlchemyAdapter(database))
    yield app
    app.close()


def watched(app, monkeypatch, answer):
    """Have marks answered by a function, which is given the real verb."""
    mark, asked = app.adapter().mark, []

    def asking(worker, record, *, now=None):
        asked.append(record.id)
        return answer(lambda: mark(worker, record, now=now), len(asked))

    monkeypatch.setattr(app.adapter(), "mark", asking)
    return asked


@pytest.mark.parametrize("job_class", [Once, OnceAsync])
def test_it_is_marked_before_it_runs(app, monkeypatch, job_class):
    before = []

    def answer(mark, _):
        before.append(list(Once.ran))
        return mark()

    asked = watched(app, monkeypatch, answer)
    handle = job_class.perform_later()
    assert Worker(app).workoff().succeeded == 1
    assert (asked, before, Once.ran) == ([handle.id], [[]], [handle.id])


def test_only_classes_that_ask_for_it_pay_for_a_mark(app, monkeypatch):
    asked = watched(app, monkeypatch, lambda mark, _: mark())
    Often.perform_later()
    assert Worker(app).workoff().succeeded == 1
    assert asked == []


@pytest.mark.parametrize("job_class", [Once, OnceAsync])
def test_without_an_answer_it_does_not_run_and_its_mark_is_taken_back(app, monkeypatch, job_class):
    failures = []
    app.events.listen(lambda event: failures.append(event.doing) if isinstance(event, StoreFailed) else None)

    def answer(mark, times):
        marked = mark()
        if times < 3:
            raise StoreUnavailable("the answer was lost")
        return marked

    asked = watched(app, monkeypatch, answer)
    handle = job_class.perform_later()
    assert Worker(app).workoff().succeeded == 1
    assert (asked, Once.ran, failures) == ([handle.id] * 3, [handle.id], ["mark"] * 2)


@pytest.mark.parametrize("job_class", [Once, OnceAsync])
def test_a_mark_that_fails_for_whatever_reason_keeps_no_slot(app, monkeypatch, job_class):
    def answer(mark, times):
        if times == 1:
            raise RuntimeError("nobody has thought of this")
        return mark()

    watched(app, monkeypatch, answer)
    handle = job_class.perform_later()
    assert Worker(app, concurrency=1).workoff().postponed == 1
    record = app.adapter().get(handle.id)
    assert (record.state, record.attempts, Once.ran) == (JobState.SCHEDULED, 0, [])
    app.adapter().retry([record])
    assert Worker(app).workoff().succeeded == 1
    assert Once.ran == [handle.id]


def test_one_that_is_cancelled_while_it_is_marked_keeps_no_slot(app, monkeypatch):
    marking, cancelled = threading.Event(), threading.Event()

    class Canceller(Job, name="once.canceller"):
        async def perform(self) -> None:
            await asyncio.to_thread(marking.wait, 30)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            cancelled.set()

    def answer(mark, times):
        marking.set()
        assert cancelled.wait(30)
        return mark()

    watched(app, monkeypatch, answer)
    OnceAsync.set(priority=1).perform_later()
    Canceller.perform_later()
    assert Worker(app).workoff().succeeded == 2
    assert len(Once.ran) == 1


def test_a_worker_that_lost_the_job_does_not_run_it(app, monkeypatch):
    fenced = []
    app.events.listen(lambda event: fenced.append(event.record.id) if isinstance(event, JobFenced) else None)

    def answer(mark, times):
        if times == 1:
            app.adapter().clear(running=True)
        return mark()

    watched(app, monkeypatch, answer)
    handle = Once.perform_later()
    tally = Worker(app).workoff()
    assert (tally.total, Once.ran, fenced) == (0, [], [handle.id])


def test_an_exception_fails_it_for_good(app):
    Once.fails = True
    handle = Once.perform_later()
    tally = Worker(app).workoff()
    assert (tally.failed, tally.retried, len(Once.ran)) == (1, 0, 1)
    left = app.adapter().get(handle.id)
    assert (left.state, left.last_error) == (JobState.FAILED, "ValueError: in the middle")
    app.adapter().retry([left])
    Once.fails = False
    assert Worker(app).workoff().succeeded == 1
    assert len(Once.ran) == 2, "an operator may have it run again"


def test_the_mark_of_a_killed_worker_fails_it_and_its_neighbours_go_on(app):
    adapter = app.adapter()
    marked, unmarked = Once.perform_later(), Once.perform_later()
    adapter.register(worker_record("w"))
    first, _ = adapter.claim("w", limit=2).claimed
    assert adapter.mark("w", first)
    adapter.rescue("w", notes={first.claim: Trace.STARTED})
    assert Worker(app).workoff().succeeded == 1
    assert Once.ran == [unmarked.id]
    left = adapter.get(marked.id)
    assert (left.state, left.last_error, left.attempts) == (JobState.FAILED, STARTED_ONCE, 1)


def test_what_a_release_without_marks_has_given_back_is_not_begun_again(app, monkeypatch):
    adapter = app.adapter()
    handle = Once.perform_later()
    adapter.register(worker_record("w"))
    (record,) = adapter.claim("w", limit=1).claimed
    adapter.mark("w", record)
    with monkeypatch.context() as patch:
        # Earlier releases knew no such field.
        patch.setattr("sapwood.lifecycle.rescued", _as_before(patch))
        adapter.rescue("w", notes={})
    assert (adapter.get(handle.id).state, Once.ran) == (JobState.READY, [])
    assert Worker(app).workoff().failed == 1
    assert (Once.ran, adapter.get(handle.id).last_error) == ([], STARTED_ONCE)


def _as_before(patch):
    from msgspec.structs import replace

    from sapwood import lifecycle

    rescued = lifecycle.rescued

    def as_before(record, trace, *, now):
        left = rescued(replace(record, started_at=None), trace, now=now)
        return replace(left, started_at=record.started_at)

    return as_before


def test_it_is_not_noted_as_started_before_its_mark(app, monkeypatch):
    """Killed between the two it has not begun: its try is given back, and nobody died of it."""
    entered, leave, notes = threading.Event(), threading.Event(), []

    def answer(mark, _):
        entered.set()
        assert leave.wait(30)
        return mark()

    watched(app, monkeypatch, answer)
    Once.perform_later()
    worker = Worker(app)
    thread = threading.Thread(target=worker.workoff)
    thread.start()
    assert entered.wait(30)
    notes.append(dict(worker._pool._page._slots))
    leave.set()
    thread.join()
    assert notes == [{}]


def test_a_failed_try_is_the_last_whatever_its_class_says(app):
    handle = Once.perform_later()
    app.adapter().register(worker_record("w"))
    (record,) = app.adapter().claim("w", limit=1).claimed
    Once.fails = True
    outcome = Executor(app).execute(record)
    assert isinstance(outcome, Failed)
    assert handle.id == record.id
    assert not isinstance(outcome, Retried)
    assert isinstance(outcome.failure, Failure)


@pytest.mark.parametrize(("delivery", "mend"), [("at_most_one", "did you mean 'at_most_once'"), (1, "at_least_once")])
def test_another_delivery_is_an_error_with_what_may_be_meant(delivery, mend):
    with pytest.raises(ConfigurationError, match=mend):

        class Wrong(Job, name="once.wrong", delivery=delivery):
            def perform(self) -> None: ...


def test_to_be_transactional_as_well_makes_no_sense():
    with pytest.raises(ConfigurationError, match="exactly once already"):

        class Both(Job, name="once.both", delivery="at_most_once", transactional=True):
            def perform(self) -> None: ...
