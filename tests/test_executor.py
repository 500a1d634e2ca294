"""Whatever a job does, it ends in one outcome with an error that can be stored."""

import asyncio
import contextlib
import io
import logging
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from conftest import worker_record
from sapwood import Executor, Job, MemoryAdapter, Sapwood, job
from sapwood.events import JobEnded, JobStarted
from sapwood.executor import LONGEST_WAIT, failure_of
from sapwood.lifecycle import Failed, Retried, Succeeded, Trace, Unrecognised
from sapwood.record import JobRecord, JobState

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ran: list[object] = []


@pytest.fixture
def app() -> Sapwood:
    ran.clear()
    return Sapwood(MemoryAdapter())


def record(name: str, args: str = "{}", **fields) -> JobRecord:
    values = {
        "id": 7,
        "state": JobState.RUNNING,
        "queue": "default",
        "priority": 50,
        "run_at": NOW,
        "created_at": NOW,
        "attempts": 1,
        "lock_token": 1,
        "locked_by": "w",
        "locked_at": NOW,
        "job": name,
        "args": args,
    }
    return JobRecord(**(values | fields))


class Add(Job, name="test.add"):
    def perform(self, a: int, b: int = 1) -> int:
        ran.append((a, b, self.context.job_id, self.context.attempt))
        return a + b


class AddAsync(Job, name="test.add_async", keep=True):
    async def perform(self, a: int) -> int:
        await asyncio.sleep(0)
        ran.append(a)
        return a + 1


class Raises(Job, name="test.raises", max_attempts=3):
    error: BaseException

    def perform(self) -> None:
        raise Raises.error


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Text(str):
    __slots__ = ()

    def __format__(self, form: str) -> str:
        raise RuntimeError("no words")

    __len__ = __getitem__ = replace = encode = __format__


class Worded(Exception):
    def __str__(self) -> str:
        return Text("words of its own")


class Nameless(type):
    def __getattribute__(cls, name: str) -> object:
        raise RuntimeError("no name")


class Unnamed(Exception, metaclass=Nameless):
    pass


def test_success_leaves_nothing(app):
    assert Executor(app).execute(record("test.add", '{"a": 1}')) == Succeeded()
    assert ran == [(1, 1, 7, 1)]


def test_a_class_that_keeps_its_rows_keeps_the_result(app):
    assert Executor(app).execute(record("test.add_async", '{"a": 1}')) == Succeeded(keep=True, result="2")


def test_an_async_job_runs_on_the_loop_it_is_given(app):
    outcome = asyncio.run(Executor(app).aexecute(record("test.add_async", '{"a": 5}')))
    assert outcome == Succeeded(keep=True, result="6")


def test_a_result_that_cannot_be_stored_does_not_undo_the_work(app, caplog):
    @job(name="test.odd_result", keep=True)
    def odd() -> object:
        return object()

    assert Executor(app).execute(record("test.odd_result")) == Succeeded(keep=True, result=None)
    assert "result" in caplog.text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (Broken(), "test_executor.Broken: (its message cannot be read)"),
        (Worded(), "test_executor.Worded: words of its own"),
        (ValueError("a\0b"), "ValueError: a\ufffdb"),
        (ValueError("a\ud800b"), "ValueError: a\\ud800b"),
        (ExceptionGroup("several", [ValueError("one")]), "ExceptionGroup: several (1 sub-exception)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_any_exception_is_a_failed_try_with_a_storable_error(app, error, text):
    Raises.error = error
    outcome = Executor(app).execute(record("test.raises", max_attempts=3))
    assert isinstance(outcome, Retried)
    assert outcome.failure.error == text
    for stored in (outcome.failure.error, outcome.failure.traceback):
        stored.encode()
        assert "\0" not in stored


def test_an_exception_whose_type_has_no_name_is_a_failed_try_too():
    assert failure_of(Unnamed("odd")).error == "(its type has no name): odd"


def test_a_huge_message_keeps_its_beginning_and_its_end():
    failure = failure_of(ValueError("begin" + "x" * 100_000_000 + "end"))
    for text in (failure.error, failure.traceback):
        assert len(text) < 70_000
        assert "begin" in text
        assert text.rstrip().endswith("end")


def test_a_traceback_begins_in_the_job_and_tells_no_values(app):
    secret = "hunter2"

    @job(name="test.secret")
    def leaky() -> None:
        password = secret
        raise ValueError(len(password))

    failure = Executor(app).execute(record("test.secret")).failure
    assert "leaky" in failure.traceback
    assert "sapwood/executor.py" not in failure.traceback
    assert "sapwood/job.py" not in failure.traceback
    assert secret not in failure.traceback.replace('secret = "hunter2"', "")


def test_the_last_try_fails_for_good(app):
    Raises.error = ValueError("bad")
    assert isinstance(Executor(app).execute(record("test.raises", attempts=2, max_attempts=3)), Retried)
    assert isinstance(Executor(app).execute(record("test.raises", attempts=3, max_attempts=3)), Failed)


@pytest.mark.parametrize("attempts", [1, 2, 3, 23])
def test_a_retry_waits_for_the_fourth_power_and_a_tenth_at_most(app, attempts):
    Raises.error = ValueError("bad")
    wait = Executor(app).execute(record("test.raises", attempts=attempts, max_attempts=24)).wait
    assert attempts**4 <= wait <= attempts**4 * 1.1


def test_a_class_may_have_a_backoff_of_its_own(app):
    class Patient(Job, name="test.patient"):
        def perform(self) -> None:
            raise ValueError

        def backoff(self, attempt: int) -> float:
            return 100 * attempt

    assert Executor(app).execute(record("test.patient", attempts=3)).wait == 300


@pytest.mark.parametrize("answer", [-1, float("nan"), "soon", None], ids=str)
def test_a_backoff_that_makes_no_sense_is_replaced(app, answer, caplog):
    class Odd(Job, name="test.odd_backoff"):
        def perform(self) -> None:
            raise ValueError

        def backoff(self, attempt: int) -> float:
            return answer

    assert 1 <= Executor(app).execute(record("test.odd_backoff")).wait <= 1.1


def test_no_backoff_waits_beyond_a_year(app):
    class Eternal(Job, name="test.eternal"):
        def perform(self) -> None:
            raise ValueError

        def backoff(self, attempt: int) -> float:
            return float("inf")

    assert Executor(app).execute(record("test.eternal")).wait == LONGEST_WAIT


@pytest.mark.parametrize("args", ['{"b": 1}', '{"a": 1, "c": 2}', '{"a": "x"}', "[1]", "{", '{"a": 1, "a"'])
def test_arguments_that_no_longer_fit_are_a_failed_try(app, args):
    outcome = Executor(app).execute(record("test.add", args))
    assert isinstance(outcome, Retried)
    assert "sapwood.errors" in outcome.failure.error
    assert ran == []


def test_an_unknown_class_is_not_noted_as_a_spent_try(adapter):
    from sapwood.pool import Pool

    app = Sapwood(MemoryAdapter())
    ended = threading.Event()
    pool = Pool(Executor(app), concurrency=1, changed=ended.set, stopping=lambda: False, is_trusted=lambda: True)
    adapter.register(worker_record("w"))
    pool.open_page(adapter.page("w", slots=5))
    pool.feed([record("gone.jobs:Gone")])
    assert ended.wait(10)
    pool.close()
    assert adapter.notes(worker_record("w")) == {(7, 1): Trace.ENDED_WELL}


def test_an_unknown_class_waits_a_minute_without_spending_a_try(app):
    outcome = Executor(app).execute(record("gone.jobs:Gone"))
    assert isinstance(outcome, Unrecognised)
    assert outcome.wait == 60
    assert "gone.jobs:Gone" in outcome.failure.error


@pytest.mark.parametrize(("hours", "kind"), [(23, Unrecognised), (24, Failed)])
def test_an_unknown_class_fails_for_good_a_day_after_it_was_first_seen(app, hours, kind):
    unknown = record("gone.jobs:Gone", unknown_since=NOW, locked_at=NOW + timedelta(hours=hours))
    assert isinstance(Executor(app).execute(unknown), kind)


def test_forged_names_import_and_call_nothing(app, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil:Job", "evil", "os:system", "test_executor:Add.perform", "sapwood.job:Job", "", "a\0b", ":"):
        assert isinstance(Executor(app).execute(record(name)), Unrecognised), name
    assert "evil" not in sys.modules
    assert ran == []


def test_middleware_wraps_each_job_the_first_outermost(app):
    def wrapper(name):
        @contextlib.contextmanager
        def around(context):
            ran.append(f"{name} in {context.job_id}")
            try:
                yield
            finally:
                ran.append(f"{name} out")

        return around

    app = Sapwood(MemoryAdapter(), middleware=[wrapper("one"), wrapper("two")])
    for name in ("test.add", "test.add_async"):
        ran.clear()
        assert isinstance(Executor(app).execute(record(name, '{"a": 1}')), Succeeded)
        assert [entry for entry in ran if isinstance(entry, str)] == ["one in 7", "two in 7", "two out", "one out"]


def test_a_job_runs_inside_the_app_whose_executor_runs_it():
    ran.clear()

    def noting(name):
        @contextlib.contextmanager
        def around(context):
            ran.append(name)
            yield

        return around

    @job(name="test.says_who")
    def says_who() -> None:
        return None

    one = Sapwood(MemoryAdapter(), middleware=[noting("one")])
    Sapwood(MemoryAdapter(), middleware=[noting("two")])
    assert isinstance(Executor(one).execute(record("test.says_who")), Succeeded)
    assert ran == ["one"]


def test_two_inline_runs_are_two_things_to_do(app):
    keys = []

    @job(name="test.inline_key", with_context=True)
    def charge(context) -> None:
        keys.append(context.idempotency_key)

    charge.perform_now()
    charge.perform_now()
    Executor(app).execute(record("test.inline_key"))
    assert len(set(keys)) == 3
    assert keys[2] == "7"


def test_middleware_that_fails_fails_the_try(app):
    @contextlib.contextmanager
    def refuses(context):
        raise PermissionError("not today")
        yield

    app = Sapwood(MemoryAdapter(), middleware=[refuses])
    outcome = Executor(app).execute(record("test.add", '{"a": 1}'))
    assert (outcome.failure.error, ran) == ("PermissionError: not today", [])


def test_async_middleware_wraps_async_jobs_and_is_refused_by_others():
    ran.clear()

    @contextlib.asynccontextmanager
    async def around(context):
        ran.append("in")
        yield
        ran.append("out")

    app = Sapwood(MemoryAdapter(), middleware=[around])
    assert isinstance(Executor(app).execute(record("test.add_async", '{"a": 1}')), Succeeded)
    assert ran == ["in", 1, "out"]
    outcome = Executor(app).execute(record("test.add", '{"a": 1}'))
    assert "contextmanager" in outcome.failure.error


def test_a_job_sees_that_its_worker_stops(app):
    seen = []

    @job(name="test.stopping", with_context=True)
    def watch(context) -> None:
        seen.append(context.stopping)

    Executor(app).execute(record("test.stopping"), stopping=lambda: True)
    Executor(app).execute(record("test.stopping"))
    assert seen == [True, False]


def test_start_and_end_are_told(app):
    told = []
    app.events.listen(told.append)
    outcome = Executor(app).execute(record("test.add", '{"a": 1}'))
    assert [type(event) for event in told] == [JobStarted, JobEnded]
    assert told[1].outcome == outcome
    assert told[1].seconds >= 0


def test_a_broken_listener_breaks_nobody_else(app, caplog):
    told = []

    def broken(event):
        raise ValueError("listener")

    app.events.listen(broken)
    app.events.listen(told.append)
    assert Executor(app).execute(record("test.add", '{"a": 1}')) == Succeeded()
    assert len(told) == 2
    assert "listener" in caplog.text


def test_a_log_whose_stream_a_job_has_closed_makes_no_job_fail(app, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    handler = logging.StreamHandler(closed)
    logger = logging.getLogger("sapwood.events")
    app.events.listen(lambda event: 1 / 0)
    logger.addHandler(handler)
    try:
        assert Executor(app).execute(record("test.add", '{"a": 1}')) == Succeeded()
    finally:
        logger.removeHandler(handler)


def test_the_arguments_of_a_job_reach_no_log(app, caplog):
    caplog.set_level(logging.DEBUG)
    Executor(app).execute(record("test.add", '{"a": 982451653}'))
    Executor(app).execute(record("test.add", '{"a": "982451653", "x": 982451653}'))
    assert "982451653" not in caplog.text
    assert "Add" in caplog.text or "test.add" in caplog.text


def test_an_executor_and_an_adapter_make_a_runner():
    from sapwood.adapters.base import Settlement
    from sapwood.record import WorkerRecord

    ran.clear()
    adapter = MemoryAdapter()
    app = Sapwood(adapter)
    Add.perform_later(1)
    Add.perform_later(2)

    executor = Executor(app)
    adapter.register(WorkerRecord(id="mine", host="here", pid=1, queues=None, concurrency=1, release="0"))
    outcomes = []
    while claimed := adapter.exchange("mine", outcomes, limit=1).claimed:
        outcomes = [Settlement(record, executor.execute(record)) for record in claimed]
    adapter.unregister("mine")

    assert [entry[0] for entry in ran] == [1, 2]
    assert adapter.jobs() == []


def test_an_error_of_an_attempt_survives_a_row(adapter, app):
    from sapwood.adapters.base import Settlement
    from sapwood.record import JobDraft

    Raises.error = ValueError("\0 \ud800 \x1b[31m " + "x" * 10**6)
    adapter.enqueue([JobDraft(job="test.raises", args="{}", max_attempts=1)])
    adapter.register(worker_record("w"))
    (claimed,) = adapter.claim("w", limit=1).claimed
    outcome = Executor(app).execute(claimed)
    assert adapter.settle("w", [Settlement(claimed, outcome)]) == {claimed.id}
    (attempt,) = adapter.attempts(claimed.id)
    assert attempt.error == outcome.failure.error == adapter.get(claimed.id).last_error
    assert attempt.traceback == outcome.failure.traceback
    assert adapter.get(claimed.id).state is JobState.FAILED
