"""A transactional job's work is committed together with its outcome, or not at all."""

import logging
import threading
from typing import ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from conftest import worker_record
from sapwood import Executor, Job, JobContext, MemoryAdapter, Sapwood, Worker, job
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import ConfigurationError, TransactionMisused
from sapwood.events import JobFenced, JobsEnqueued
from sapwood.lifecycle import Failed, Released, Retried, Succeeded
from sapwood.record import JobDraft, JobState

KINDS = ["sqlite", "postgresql", "mysql"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def app(kind, database_url):
    app = Sapwood(database_url(kind))
    app.migrate()
    with app.adapter()._writing() as connection:
        connection.execute(text("CREATE TABLE effects (number INTEGER)"))
    Do.what = staticmethod(effect)
    yield app
    app.close()


class Do(Job, name="transactional.do", transactional=True, max_attempts=2):
    what: ClassVar

    def perform(self, number: int = 1) -> None:
        Do.what(self.context, number)

    def backoff(self, attempt: int) -> float:
        return 0


class Later(Job, name="transactional.later"):
    def perform(self) -> None: ...


@job(name="transactional.function", transactional=True, with_context=True)
def function(context: JobContext, number: int) -> int:
    effect(context, number)
    return number


def effect(context, number=1):
    context.connection.execute(text("INSERT INTO effects VALUES (:number)"), {"number": number})


def fail_after(context, number):
    effect(context, number)
    raise ValueError("in the middle of it")


def effects(app):
    with app.adapter()._reading() as connection:
        return sorted(connection.scalars(text("SELECT number FROM effects")))


def claimed(app, worker="w"):
    """Return the next job, claimed by a worker that is made known."""
    adapter = app.adapter()
    if worker not in {known.id for known in adapter.workers()}:
        adapter.register(worker_record(worker))
    (record,) = adapter.claim(worker, limit=1).claimed
    return record


def heard(app, kind):
    events = []
    app.events.listen(lambda event: events.append(event) if isinstance(event, kind) else None)
    return events


# --- work and outcome -------------------------------------------------------------------------------------------------


def test_the_work_and_the_outcome_are_committed_together(app):
    Do.perform_later(7)
    record = claimed(app)
    assert Executor(app).execute(record) == Succeeded(written=True)
    assert effects(app) == [7]
    assert app.adapter().get(record.id) is None


def test_what_is_not_committed_yet_nobody_sees(app):
    Do.perform_later(7)
    record, seen = claimed(app), []

    def work(context, number):
        effect(context, number)
        seen.append((effects(app), app.adapter().get(record.id).state))

    Do.what = staticmethod(work)
    Executor(app).execute(record)
    assert seen == [([], JobState.RUNNING)]


def test_what_raises_has_done_nothing_and_is_tried_again(app):
    def fail(context, number):
        effect(context, number)
        raise ValueError("after its work")

    Do.what = staticmethod(fail)
    Do.perform_later()
    outcome = Executor(app).execute(claimed(app))
    assert isinstance(outcome, Retried)
    assert "after its work" in outcome.failure.error
    assert effects(app) == []


def test_what_fails_in_its_middleware_has_done_nothing(kind, app):
    from contextlib import contextmanager

    @contextmanager
    def fails(context):
        yield
        raise ValueError("behind it")

    two = Sapwood(app.adapter(), middleware=[fails])
    Do.perform_later()
    assert isinstance(Executor(two).execute(claimed(app)), Retried)
    assert effects(app) == []


def test_the_work_of_a_worker_that_was_fenced_is_undone(app):
    fenced = heard(app, JobFenced)

    def slow(context, number):
        effect_before_rescue = app.adapter().rescue("w", notes={})
        assert len(effect_before_rescue) == 1
        effect(context, number)

    Do.what = staticmethod(slow)
    Do.perform_later()
    record = claimed(app)
    assert Executor(app).execute(record) == Released(written=True)
    assert effects(app) == []
    assert app.adapter().get(record.id).state is JobState.READY
    assert [event.record.id for event in fenced] == [record.id]


def test_a_transaction_that_is_never_opened_settles_nothing(app):
    Do.what = staticmethod(lambda context, number: None)
    Do.perform_later()
    record = claimed(app)
    assert Executor(app).execute(record) == Succeeded()
    assert app.adapter().get(record.id).state is JobState.RUNNING


def test_a_result_that_is_kept_is_kept_by_the_same_transaction(app):
    class Kept(Job, name="transactional.kept", transactional=True, keep=True):
        def perform(self) -> int:
            effect(self.context)
            return 5

    handle = Kept.perform_later()
    assert Executor(app).execute(claimed(app)) == Succeeded(keep=True, result="5", written=True)
    assert (handle.state, handle.result()) == (JobState.SUCCEEDED, 5)


def test_a_worker_counts_what_is_written_already(app):
    for number in range(20):
        Do.perform_later(number)
    Later.perform_later()
    worker = Worker(app, concurrency=3)
    assert worker.workoff().succeeded == 21
    assert effects(app) == list(range(20))
    assert app.adapter().counts() == {}


def test_a_worker_has_the_failed_tried_again_and_the_fenced_forgotten(app):
    tries = []

    def work(context, number):
        effect(context, number)
        tries.append(context.attempt)
        if context.attempt == 1:
            raise ValueError("the first time")

    Do.what = staticmethod(work)
    Do.perform_later(3)
    tally = Worker(app).workoff()
    assert (tally.retried, tally.succeeded, tries) == (1, 1, [1, 2])
    assert effects(app) == [3]


def test_a_function_can_be_transactional(app):
    function.perform_later(4)
    assert Executor(app).execute(claimed(app)) == Succeeded(written=True)
    assert effects(app) == [4]


# --- the session ------------------------------------------------------------------------------------------------------


def test_a_session_left_open_is_flushed_and_its_commits_are_savepoints(app):
    from sqlalchemy import Integer
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        pass

    class Effect(Base):
        __tablename__ = "effects"
        number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)

    def work(context, number):
        context.session.add(Effect(number=1))
        context.session.commit()
        context.session.add(Effect(number=2))
        context.session.rollback()
        context.session.add(Effect(number=3))
        if number == 13:
            raise ValueError

    Do.what = staticmethod(work)
    Do.perform_later(13)
    assert isinstance(Executor(app).execute(claimed(app)), Retried)
    assert effects(app) == []
    Do.perform_later(1)
    assert Executor(app).execute(claimed(app)) == Succeeded(written=True)
    assert effects(app) == [1, 3]


def test_a_statement_that_failed_and_was_caught_undoes_all_where_the_database_does_so(app, kind):
    def work(context, number):
        effect(context, number)
        with pytest.raises(DBAPIError, match="nothing"):
            context.connection.execute(text("INSERT INTO nothing VALUES (1)"))

    Do.what = staticmethod(work)
    Do.perform_later()
    outcome = Executor(app).execute(claimed(app))
    if kind == "postgresql":
        assert isinstance(outcome, Retried)
        assert "begin_nested" in outcome.failure.error
    else:
        assert outcome == Succeeded(written=True), "the one statement is undone"
    assert effects(app) == ([] if kind == "postgresql" else [1])


def test_what_is_refused_when_it_is_flushed_is_the_jobs_failure(app):
    def work(context, number):
        context.session.add(context)

    Do.what = staticmethod(work)
    Do.perform_later()
    outcome = Executor(app).execute(claimed(app))
    assert isinstance(outcome, Retried)
    assert "UnmappedInstanceError" in outcome.failure.error


def test_what_is_refused_at_the_commit_is_the_jobs_failure(app, kind):
    if kind != "postgresql":
        pytest.skip("it has no constraints that are looked at so late")
    with app.adapter()._writing() as connection:
        connection.execute(text("ALTER TABLE effects ADD UNIQUE (number) DEFERRABLE INITIALLY DEFERRED"))

    def work(context, number):
        effect(context, number)
        effect(context, number)

    Do.what = staticmethod(work)
    Do.perform_later()
    record = claimed(app)
    outcome = Executor(app).execute(record)
    assert isinstance(outcome, Retried)
    assert "UniqueViolation" in outcome.failure.error
    assert (effects(app), app.adapter().get(record.id).state) == ([], JobState.RUNNING)


# --- what a job must not do -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["commit", "rollback", "close", "invalidate"])
def test_a_job_cannot_end_its_transaction_by_accident(app, verb):
    def work(context, number):
        effect(context, number)
        with pytest.raises(TransactionMisused, match="together with the outcome"):
            getattr(context.connection, verb)()
        assert context.connection.in_transaction()

    Do.what = staticmethod(work)
    Do.perform_later()
    assert Executor(app).execute(claimed(app)) == Succeeded(written=True)
    assert effects(app) == [1]


def test_a_transaction_that_was_ended_by_a_statement_is_told_of(app):
    def work(context, number):
        context.connection.exec_driver_sql("COMMIT")

    Do.what = staticmethod(work)
    Do.perform_later()
    record = claimed(app)
    outcome = Executor(app).execute(record)
    assert isinstance(outcome, Retried)
    assert "was ended in it" in outcome.failure.error
    assert app.adapter().get(record.id).state is JobState.RUNNING


def test_a_savepoint_of_the_jobs_own_can_fail(app):
    def work(context, number):
        effect(context, 1)
        with pytest.raises(ValueError, match="in the middle"), context.connection.begin_nested():
            fail_after(context, 2)

    Do.what = staticmethod(work)
    Do.perform_later()
    assert Executor(app).execute(claimed(app)) == Succeeded(written=True)
    assert effects(app) == [1]


def test_a_connection_is_of_no_use_after_the_run(app):
    kept = []
    Do.what = staticmethod(lambda context, number: kept.append((context, context.connection)))
    Do.perform_later()
    Executor(app).execute(claimed(app))
    with pytest.raises(TransactionMisused, match="is over"):
        kept[0][0].connection  # noqa: B018 - to look is to open
    with pytest.raises(Exception, match="closed"):
        kept[0][1].execute(text("SELECT 1"))


def test_what_a_job_sets_in_its_session_does_not_meet_the_next(app, kind):
    if kind == "sqlite":
        setting, asked = "PRAGMA foreign_keys = ON", "PRAGMA foreign_keys"
    else:
        setting, asked = {
            "postgresql": ("SET search_path = elsewhere", "SHOW search_path"),
            "mysql": ("SET SESSION sql_mode = ''", "SELECT @@sql_mode"),
        }[kind]
    seen = []

    def work(context, number):
        seen.append(context.connection.exec_driver_sql(asked).scalar())
        context.connection.exec_driver_sql(setting)

    Do.what = staticmethod(work)
    for _ in range(2):
        Do.perform_later()
        Executor(app).execute(claimed(app))
    assert seen[0] == seen[1]


def test_our_own_time_outs_do_not_limit_the_job(app, kind):
    if kind == "sqlite":
        pytest.skip("it has none")
    asked = {
        "postgresql": "SELECT current_setting('statement_timeout') || current_setting('enable_seqscan')"
        " || current_setting('idle_in_transaction_session_timeout') || current_setting('transaction_isolation')",
        "mysql": "SELECT concat(@@max_statement_time, @@wait_timeout > 60, @@tx_isolation)",
    }[kind]
    seen = []
    Do.what = staticmethod(lambda context, number: seen.append(context.connection.exec_driver_sql(asked).scalar()))
    Do.perform_later()
    Executor(app).execute(claimed(app))
    assert seen == [{"postgresql": "0on0read committed", "mysql": "0.0000001READ-COMMITTED"}[kind]]


def test_who_has_no_transaction_is_told_so(app):
    class Plain(Job, name="transactional.plain"):
        def perform(self) -> None:
            self.context.connection  # noqa: B018 - to look is to open

    Plain.perform_later()
    outcome = Executor(app).execute(claimed(app))
    assert isinstance(outcome, Retried)
    assert "transactional=True" in outcome.failure.error


# --- enqueuing within -------------------------------------------------------------------------------------------------


def test_jobs_enqueued_within_an_open_transaction_join_it(app):
    told = heard(app, JobsEnqueued)

    def work(context, number):
        Later.perform_later()
        assert len(told) == 2, "before it is open they go their own way"
        effect(context, number)
        Later.perform_later()
        Later.set(wait=5).perform_later()
        assert len(told) == 2, "it waits for the commit"
        if number == 13:
            raise ValueError

    Do.what = staticmethod(work)
    Do.perform_later(13)
    assert isinstance(Executor(app).execute(claimed(app)), Retried)
    assert (len(app.adapter().jobs()), len(told)) == (2, 2), "what joined is undone, what did not is there"
    app.adapter().clear(running=True)
    told.clear()
    told.append("the job itself")
    Do.perform_later(1)
    del told[0]
    assert Executor(app).execute(claimed(app)) == Succeeded(written=True)
    assert [record.job for record in app.adapter().jobs()] == ["transactional.later"] * 3
    assert len(told) == 4


def test_workers_are_told_after_the_commit_of_what_was_enqueued_in_it(app):
    woken = threading.Event()

    def work(context, number):
        effect(context, number)
        Later.perform_later()

    Do.what = staticmethod(work)
    Do.perform_later()
    record = claimed(app)
    adapter = app.adapter()
    adapter._wakes = {**adapter._wakes, "test": woken.set}
    Executor(app).execute(record)
    assert woken.is_set()


# --- inline -----------------------------------------------------------------------------------------------------------


def test_inline_it_commits_at_the_end_and_undoes_what_failed(app):
    Do.perform_now(5)
    assert effects(app) == [5]

    def fail(context, number):
        effect(context, number)
        raise ValueError("inline")

    Do.what = staticmethod(fail)
    with pytest.raises(ValueError, match="inline"):
        Do.perform_now(6)
    assert effects(app) == [5]
    assert function.perform_now(8) == 8
    assert effects(app) == [5, 8]


def test_inline_the_callers_transaction_is_not_for_the_job_to_end(app):
    from sqlalchemy import create_engine

    engine = create_engine(app.adapter()._dialect.url)

    def work(context, number):
        effect(context, number)
        with pytest.raises(TransactionMisused, match="together with the outcome"):
            context.connection.commit()
        with context.session.begin_nested():
            context.session.execute(text("INSERT INTO effects VALUES (2)"))

    Do.what = staticmethod(work)
    with engine.connect() as connection:
        Do.set(connection=connection).perform_now(1)
        connection.rollback()
        Do.set(connection=connection).perform_now(3)
        connection.commit()
    engine.dispose()
    assert effects(app) == [2, 3]


@pytest.mark.parametrize("way", ["connection", "block"])
def test_inline_it_joins_the_callers_transaction(app, way):
    from sqlalchemy import create_engine

    engine = create_engine(app.adapter()._dialect.url)

    def run(session, number):
        if way == "connection":
            Do.set(connection=session).perform_now(number)
        else:
            with app.transaction(session):
                Do.perform_now(number)

    try:
        with Session(engine) as session:
            run(session, 1)
            session.rollback()
        with Session(engine) as session:
            run(session, 2)

            def fail(context, number):
                context.session.execute(text("INSERT INTO effects VALUES (3)"))
                raise ValueError

            Do.what = staticmethod(fail)
            with pytest.raises(ValueError):  # noqa: PT011 - any will do
                run(session, 3)
            session.commit()
    finally:
        engine.dispose()
    assert effects(app) == [2]


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_a_store_without_transactions_says_so():
    app = Sapwood(MemoryAdapter())
    for refused in (Do.perform_later, Do.perform_now):
        with pytest.raises(ConfigurationError, match="memory://") as error:
            refused()
        assert "transactional" in str(error.value)
    app.load()
    app.adapter().register(worker_record("w"))
    app.adapter().enqueue([JobDraft(job="transactional.do", args="{}")])
    (record,) = app.adapter().claim("w", limit=1).claimed
    assert isinstance(Executor(app).execute(record), Retried | Failed)


def test_a_coroutine_without_an_asynchronous_driver_is_refused_at_once(database):
    app = Sapwood(database)
    with pytest.raises(ConfigurationError, match="create_async_engine"):

        class Late(Job, name="transactional.late", app=app, transactional=True):
            async def perform(self) -> None: ...

    app.close()


def test_a_coroutine_whose_app_comes_later_is_refused_at_the_first_enqueue(database):
    class Early(Job, name="transactional.early", adapter="not yet", transactional=True):
        async def perform(self) -> None: ...

    app = Sapwood(adapters={"default": SQLAlchemyAdapter(database), "not yet": SQLAlchemyAdapter(database)})
    for refused in (Early.perform_later, app.load):
        with pytest.raises(ConfigurationError, match="create_async_engine"):
            refused()
    app.close()


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lite(database):
    app = Sapwood(database)
    app.migrate()
    with app.adapter()._writing() as connection:
        connection.execute(text("CREATE TABLE effects (number INTEGER)"))
    yield app
    app.close()


def test_a_verb_that_would_wait_for_its_own_job_is_refused_at_once(lite):
    def work(context, number):
        lite.adapter().cancel(lite.adapter().jobs())
        effect(context, number)
        lite.adapter().counts()
        with pytest.raises(TransactionMisused, match="would wait"):
            lite.adapter().cancel(lite.adapter().jobs())

    Do.what = staticmethod(work)
    Do.perform_later()
    assert Executor(lite).execute(claimed(lite)) == Succeeded(written=True)


def test_a_transaction_that_keeps_others_from_writing_for_long_is_told_of(lite, caplog, monkeypatch):
    monkeypatch.setattr("sapwood.adapters.transaction.LONG_SECONDS", 0.0)
    Do.what = staticmethod(effect)
    Do.perform_later()
    record = claimed(lite)
    with caplog.at_level(logging.WARNING, "sapwood"):
        Executor(lite).execute(record)
    assert f"the transaction of job #{record.id} was open" in caplog.text


def test_jobs_take_turns_and_a_beat_does_not_wait_for_them(lite, monkeypatch):
    monkeypatch.setattr("sapwood.adapters.dialects.sqlite._BEAT_SECONDS", 0.05)
    entered, leave = threading.Semaphore(0), threading.Event()

    def work(context, number):
        effect(context, number)
        entered.release()
        assert leave.wait(30)

    Do.what = staticmethod(work)
    for number in range(3):
        Do.perform_later(number)
    adapter = lite.adapter()
    adapter.register(worker_record("w"))
    records = adapter.claim("w", limit=3).claimed
    threads = [threading.Thread(target=Executor(lite).execute, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    assert entered.acquire(timeout=30)
    beats = [adapter.workers()[0].beat, adapter.beat(["w", "unknown"])]
    assert not entered.acquire(blocking=False), "one at a time"
    assert beats == [0, frozenset({"w"})], "its row is there, and nobody can take it away meanwhile"
    leave.set()
    for thread in threads:
        thread.join()
    assert effects(lite) == [0, 1, 2]
    assert adapter.beat(["w"]) == {"w"}
    assert adapter.workers()[0].beat == 1


def test_in_memory_a_job_works_on_the_one_connection_that_there_is():
    app = Sapwood("sqlite:///:memory:")
    app.migrate()
    with app.adapter()._writing() as connection:
        connection.execute(text("CREATE TABLE effects (number INTEGER)"))

    def work(context, number):
        effect(context, number)
        with pytest.raises(TransactionMisused):
            app.adapter().counts()

    Do.what = staticmethod(work)
    Do.perform_later(1)
    assert Worker(app).workoff().succeeded == 1
    assert effects(app) == [1]
    app.close()
