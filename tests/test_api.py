"""Defining jobs and enqueuing them, as an application does."""

import asyncio
import functools
import logging
import math
import threading
import types
from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from sapwood import (
    FunctionJob,
    Job,
    JobContext,
    JobState,
    MemoryAdapter,
    PendingJob,
    Sapwood,
    Worker,
    aenqueue_all,
    enqueue_all,
    job,
    registry,
)
from sapwood.errors import (
    ArgumentsMismatch,
    ConfigurationError,
    InvalidPriority,
    InvalidWait,
    JobFailed,
    MissingPerform,
    ResultTimeout,
    ResultUnavailable,
    UnknownAdapter,
    UnknownQueue,
    UnstorableArguments,
    UnsupportedConnection,
)


class Add(Job, name="api.add", queue="sums", priority=20, max_attempts=5, keep=True):
    def perform(self, a: int, b: int = 1) -> int:
        return a + b


class Attributes(Job, name="api.attributes"):
    queue = "sums"
    priority = 20
    max_attempts = 5
    keep = True

    def perform(self) -> None: ...


class Fetch(Job, name="api.fetch", keep=True):
    async def perform(self, url: str) -> bytes:
        await asyncio.sleep(0)
        return url.encode()


class Fails(Job, name="api.fails", max_attempts=1, keep=True):
    def perform(self) -> int:
        raise ValueError("bad luck")


class Forgets(Job, name="api.forgets"):
    def perform(self) -> int:
        return 1


class WhatContext(Job, name="api.what_context", queue="sums"):
    def perform(self) -> JobContext:
        return self.context


class Static(Job, name="api.static", keep=True):
    @staticmethod
    def perform(n: int) -> int:
        return n


class OfClass(Job, name="api.of_class", keep=True):
    @classmethod
    def perform(cls, n: int) -> str:
        return f"{cls.__name__}{n}"


@attrs.define
class Attrs(Job, name="api.attrs", queue="sums", keep=True):
    calls: int = 0

    def perform(self, n: int) -> int:
        self.calls += n
        return self.calls


@dataclass
class Data(Job, name="api.data", keep=True):
    calls: int = 0

    def perform(self, n: int) -> int:
        self.calls += n
        return self.calls


@job(name="api.resize", queue="media", keep=True)
def resize(photo: int, width: int = 100) -> str:
    """Make it smaller."""
    return f"{photo}:{width}"


@job(name="api.crawl", keep=True)
async def crawl(url: str) -> list[str]:
    return [url]


@job(name="api.with_context", with_context=True, keep=True)
def with_context(context: JobContext, n: int) -> list[int]:
    return [context.job_id, n]


@job(name="api.awith_context", with_context=True, keep=True)
async def awith_context(context: JobContext, n: int) -> list[int]:
    return [context.job_id, n]


@job
def bare(n: int) -> int:
    return n


@pytest.fixture
def app():
    return Sapwood(MemoryAdapter())


def work(app: Sapwood) -> None:
    Worker(app).workoff()


# --- defining ---


@pytest.mark.parametrize("job_class", [Add, Attributes])
def test_class_keywords_and_class_attributes_say_the_same(app, job_class):
    draft = job_class.build(*([1] if job_class is Add else [])).draft
    assert (draft.queue, draft.priority, draft.max_attempts, job_class.keep) == ("sums", 20, 5, True)


SECOND = Sapwood(MemoryAdapter())
OWN_LOGGER = logging.getLogger("api.own")
DECLARED = {
    "queue": "sums",
    "priority": 20,
    "max_attempts": 5,
    "adapter": "default",
    "keep": True,
    "app": SECOND,
    "name": "api.declared",
    "aliases": ["api.once", "api.twice"],
    "logger": OWN_LOGGER,
}


@pytest.mark.parametrize("as_attributes", [True, False], ids=["attributes", "keywords"])
def test_every_option_of_a_class_may_be_a_keyword_or_an_attribute(app, as_attributes):
    attributes, keywords = (DECLARED, {}) if as_attributes else ({}, DECLARED)

    def perform(self):
        return self.logger

    declared = types.new_class("Declared", (Job,), keywords, lambda filled: filled.update(attributes, perform=perform))
    pending = declared.build()
    draft = pending.draft
    assert (draft.job, draft.queue, draft.priority, draft.max_attempts) == ("api.declared", "sums", 20, 5)
    assert pending.app is SECOND
    assert (declared.adapter, declared.keep) == ("default", True)
    assert [registry.find(name) for name in ("api.declared", "api.once", "api.twice")] == [declared] * 3
    told = declared.perform_now()
    assert (told.logger, told.extra["queue"]) == (OWN_LOGGER, "sums"), "the run's own, on top of what is declared"
    assert (declared.logger, SECOND.logger_for("api.declared")) == (OWN_LOGGER, OWN_LOGGER)


@pytest.mark.parametrize("as_attributes", [True, False], ids=["attributes", "keywords"])
def test_a_subclass_inherits_every_option_but_the_names(app, as_attributes):
    attributes, keywords = (DECLARED, {}) if as_attributes else ({}, DECLARED)
    parent = types.new_class("Parent", (Job,), keywords, lambda filled: filled.update(attributes))
    child = type("Child", (parent,), {"perform": lambda self: None, "__module__": "api", "__qualname__": "Child"})
    pending = child.build()
    assert (pending.draft.job, pending.draft.queue, pending.app) == ("api:Child", "sums", SECOND)
    assert child.logger is OWN_LOGGER
    assert registry.find("api.once") is not child


def test_a_class_may_make_its_logger_by_a_property(app):
    class Careful(Job):
        @property
        def logger(self):
            return OWN_LOGGER

        def perform(self):
            return self.logger

    assert Careful.perform_now() is OWN_LOGGER


def test_options_are_inherited_and_may_be_changed(app):
    class Child(Add, name="api.child", priority=30):
        pass

    draft = Child.build(1).draft
    assert (draft.job, draft.queue, draft.priority) == ("api.child", "sums", 30)
    assert Add.priority == 20


def test_a_typo_in_a_class_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="qeue"):
        type("Typo", (Job,), {}, qeue="x")


@pytest.mark.parametrize("as_attribute", [True, False])
@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("priority", 0, InvalidPriority),
        ("priority", 101, InvalidPriority),
        ("priority", True, InvalidPriority),
        ("priority", 50.0, InvalidPriority),
        ("priority", "50", InvalidPriority),
        ("queue", "", ConfigurationError),
        ("queue", 3, ConfigurationError),
        ("queue", "q" * 129, ConfigurationError),
        ("max_attempts", 0, ConfigurationError),
        ("max_attempts", True, ConfigurationError),
        ("max_attempts", "5", ConfigurationError),
        ("adapter", 5, ConfigurationError),
        ("keep", "yes", ConfigurationError),
        ("app", "sqlite:///jobs.db", ConfigurationError),
        ("name", 5, ConfigurationError),
        ("aliases", 7, ConfigurationError),
        ("aliases", "shop.old", ConfigurationError),
        ("aliases", [7], ConfigurationError),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_where_the_class_is_written(option, value, error, as_attribute):
    attributes, keywords = ({option: value}, {}) if as_attribute else ({}, {option: value})
    with pytest.raises(error):
        type("Wrong", (Job,), attributes, **keywords)


def test_a_generator_is_refused_since_calling_it_would_do_nothing():
    def perform(self):
        yield 1

    with pytest.raises(ConfigurationError, match="generator"):
        type("Generator", (Job,), {"perform": perform})


def test_a_base_without_perform_is_an_error_only_when_it_is_enqueued(app):
    class Base(Job, queue="sums"): ...

    class Abstract(Job):
        @abstractmethod
        def perform(self) -> None: ...

    for job_class in (Base, Abstract, Job):
        for act in (job_class.perform_later, job_class.perform_now, job_class.build, job_class.set().perform_later):
            with pytest.raises(MissingPerform, match="perform"):
                act()


@pytest.mark.parametrize(("job_class", "expected"), [(Static, 3), (OfClass, "OfClass3"), (Attrs, 3), (Data, 3)])
def test_a_job_may_be_written_in_several_ways(app, job_class, expected):
    assert job_class.perform_now(3) == expected
    handles = [job_class.perform_later(3), job_class.perform_later(3)]
    work(app)
    assert [handle.result(timeout=0) for handle in handles] == [expected] * 2


# --- options of one enqueue ---


def test_options_say_how_this_one_is_stored(app):
    record = Add.set(queue="bulk", priority=90, wait=60).perform_later(1).record
    assert (record.queue, record.priority, record.state) == ("bulk", 90, JobState.SCHEDULED)
    assert record.run_at - record.created_at == timedelta(seconds=60)


def test_a_wait_may_be_a_timedelta(app):
    record = Add.set(wait=timedelta(minutes=2)).perform_later(1).record
    assert record.run_at - record.created_at == timedelta(minutes=2)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
def test_a_moment_is_the_same_in_every_time_zone(database, zone):
    moment = datetime(2999, 12, 31, 12, tzinfo=zone)
    for store in (MemoryAdapter(), database):
        app = Sapwood(store)
        assert Add.set(wait_until=moment).perform_later(1).record.run_at == moment
        app.close()


def test_a_moment_that_is_past_is_now(app):
    handle = Add.set(wait_until=datetime(2000, 1, 1, tzinfo=UTC)).perform_later(1)
    assert handle.state is JobState.READY


@pytest.mark.parametrize(
    "options",
    [
        {"wait": -1},
        {"wait": -0.001},
        {"wait": timedelta(seconds=-1)},
        {"wait": math.nan},
        {"wait": math.inf},
        {"wait": 1e300},
        {"wait": True},
        {"wait": "soon"},
        {"wait_until": datetime(2999, 1, 1)},  # noqa: DTZ001 - that is what is wrong with it
        {"wait_until": datetime(2999, 1, 1).date()},  # noqa: DTZ001 - only its date is taken
        {"wait_until": "tomorrow"},
        {"wait": 1, "wait_until": datetime(2999, 1, 1, tzinfo=UTC)},
        {"wait": 0, "wait_until": datetime(2999, 1, 1, tzinfo=UTC)},
    ],
    ids=repr,
)
def test_a_wait_that_makes_no_sense_is_refused(options):
    with pytest.raises(InvalidWait):
        Add.set(**options)
    with pytest.raises(InvalidWait):
        resize.set(**options)


def test_a_naive_moment_is_refused_with_how_to_make_it_aware():
    with pytest.raises(InvalidWait) as raised:
        Add.set(wait_until=datetime(2999, 1, 1))  # noqa: DTZ001 - that is what is wrong with it
    assert "tzinfo=UTC" in raised.value.mend


@pytest.mark.parametrize("priority", [0, 101, -1, True, 50.0, math.nan, "1"])
def test_a_priority_outside_1_to_100_is_refused(priority):
    with pytest.raises(InvalidPriority, match="1"):
        Add.set(priority=priority)


@pytest.mark.parametrize("priority", [1, 100])
def test_a_priority_of_1_and_of_100_is_accepted(app, priority):
    assert Add.set(priority=priority).perform_later(1).record.priority == priority


def test_a_typo_in_an_option_is_a_type_error():
    with pytest.raises(TypeError, match="wiat"):
        Add.set(wiat=60)


def test_a_queue_that_is_not_declared_is_refused_with_what_may_have_been_meant():
    app = Sapwood(MemoryAdapter(), queues=["sums", "email"])
    Add.perform_later(1)
    for act in (lambda: Add.set(queue="emial").perform_later(1), lambda: Add.set(queue="emial").build(1)):
        with pytest.raises(UnknownQueue, match="did you mean 'email'"):
            act()
    with pytest.raises(UnknownQueue, match="default"):
        Fetch.perform_later("u")
    assert len(app.adapter().jobs()) == 1


def test_an_adapter_that_is_not_there_is_refused(app):
    class Lost(Job, name="api.lost", adapter="nowhere"):
        def perform(self) -> None: ...

    with pytest.raises(UnknownAdapter, match="nowhere"):
        Lost.perform_later()


# --- arguments ---


@pytest.mark.parametrize("how", ["perform_later", "perform_now", "build"])
def test_arguments_are_checked_at_the_caller(app, how):
    act = getattr(Add, how)
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"c": 1}), ((1,), {"a": 1})):
        with pytest.raises(ArgumentsMismatch):
            act(*args, **kwargs)
    with pytest.raises(UnstorableArguments):
        act(object())
    assert len(app.adapter().jobs()) == 0


def test_inline_arguments_are_those_that_a_worker_would_see(app):
    class Kinds(Job, name="api.kinds"):
        def perform(self, when: datetime, numbers: list[int]) -> tuple[object, object]:
            return when, numbers

    numbers = [1, 2]
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    when, seen = Kinds.perform_now(moment, numbers)
    assert (when, seen) == (moment, numbers)
    assert seen is not numbers


# --- inline ---


def test_inline_returns_what_perform_returns_and_stores_nothing(app):
    assert Add.perform_now(1, b=2) == 3
    assert Add.set(wait=60).perform_now(1) == 2
    assert resize.perform_now(3) == "3:100"
    assert with_context.perform_now(4) == [0, 4]
    assert len(app.adapter().jobs()) == 0


def test_inline_an_async_job_returns_its_coroutine(app):
    async def scenario() -> list[object]:
        return [await Fetch.perform_now("u"), await crawl.perform_now("v"), await awith_context.perform_now(1)]

    assert asyncio.run(scenario()) == [b"u", ["v"], [0, 1]]


def test_inline_an_error_comes_through(app):
    with pytest.raises(ValueError, match="bad luck"):
        Fails.perform_now()


def test_inline_the_context_is_that_of_no_stored_job(app):
    context = WhatContext.perform_now()
    assert (context.job_id, context.attempt, context.queue, context.priority) == (0, 1, "sums", 50)
    context = WhatContext.set(queue="bulk", priority=7).perform_now()
    assert (context.queue, context.priority) == ("bulk", 7)
    assert context.stopping is False


def test_inline_runs_inside_the_middleware():
    entered = []

    @contextmanager
    def middleware(context):
        entered.append(context.queue)
        yield

    Sapwood(MemoryAdapter(), middleware=[middleware])
    Add.perform_now(1)
    assert entered == ["sums"]


def test_an_instance_made_in_a_test_has_a_context_and_a_logger(app):
    instance = WhatContext()
    assert instance.perform().job_id == 0
    instance.logger.info("hello")


def test_a_coroutine_that_a_decorator_hides_is_no_success(app):
    def hiding(function):
        def hidden(self):
            return function(self)

        return hidden

    class Hidden(Job, name="api.hidden"):
        @hiding
        async def perform(self) -> None: ...

    with pytest.raises(ConfigurationError, match="coroutine"):
        Hidden.perform_now()


def test_a_wrapped_async_function_is_still_asynchronous(app):
    def logged(function):
        @functools.wraps(function)
        def wrapper(self, n):
            return function(self, n)

        return wrapper

    class Wrapped(Job, name="api.wrapped", keep=True):
        @logged
        async def perform(self, n: int) -> int:
            return n

    handle = Wrapped.perform_later(3)
    work(app)
    assert handle.result(timeout=0) == 3


# --- functions ---


def test_a_function_stays_a_function():
    assert resize(3, width=50) == "3:50"
    assert resize.__name__ == "resize"
    assert resize.__doc__ == "Make it smaller."
    assert asyncio.run(crawl("u")) == ["u"]
    assert isinstance(resize, FunctionJob)


def test_functions_are_jobs(app):
    handles = [
        resize.perform_later(3, width=50),
        resize.set(priority=1).perform_later(4),
        crawl.perform_later("u"),
        *enqueue_all([resize.build(5)]),
    ]
    assert handles[0].record.queue == "media"
    work(app)
    assert [handle.result(timeout=0) for handle in handles] == ["3:50", "4:100", ["u"], "5:100"]


@pytest.mark.parametrize("function", [with_context, awith_context])
def test_a_function_may_ask_for_its_context(app, function):
    handle = function.perform_later(7)
    work(app)
    assert handle.result(timeout=0) == [handle.id, 7]
    with pytest.raises(ArgumentsMismatch):
        function.perform_later(JobContext(), 7)


def test_a_function_without_options_is_stored_under_its_module_and_name(app):
    assert bare.build(1).draft.job == f"{__name__}:bare"


# --- many at once ---


def test_many_jobs_take_one_round_trip_and_keep_their_order():
    class Counting(MemoryAdapter):
        calls = 0

        def enqueue(self, drafts, **options):
            self.calls += 1
            return super().enqueue(drafts, **options)

    one, two = Counting(), Counting()
    Sapwood(adapters={"default": one, "audit": two})

    class Audit(Job, name="api.audit", adapter="audit"):
        def perform(self) -> None: ...

    handles = enqueue_all([Add.build(1), Audit.build(), resize.build(2), Audit.build(), Add.set(wait=5).build(3)])
    assert (one.calls, two.calls) == (1, 1)
    assert [handle.record.job for handle in handles] == [
        "api.add",
        "api.audit",
        "api.resize",
        "api.audit",
        "api.add",
    ]
    assert handles[4].state is JobState.SCHEDULED


def test_no_jobs_are_no_round_trip(app):
    assert enqueue_all([]) == []
    assert enqueue_all(Add.build(n) for n in range(0)) == []


def test_the_same_pending_job_twice_is_two_jobs(app):
    first, second = enqueue_all([Add.build(1)] * 2)
    assert first.id != second.id


def test_building_stores_nothing(app):
    assert isinstance(Add.build(1), PendingJob)
    assert len(app.adapter().jobs()) == 0


@pytest.mark.parametrize("wrong", [1, Add, None])
def test_enqueuing_what_was_not_built_is_a_type_error(app, wrong):
    with pytest.raises(TypeError, match="build"):
        enqueue_all([Add.build(1), wrong])
    assert len(app.adapter().jobs()) == 0


# --- from async code ---


def test_async_code_enqueues_in_a_thread_of_its_own(app):
    threads = []
    app.events.listen(lambda _: threads.append(threading.current_thread()))

    async def scenario() -> list[object]:
        one = await Add.aperform_later(1)
        two = await Add.set(priority=1).aperform_later(2)
        three = await resize.aperform_later(3)
        return [one, two, three, *await aenqueue_all([Add.build(4), crawl.build("u")])]

    handles = asyncio.run(scenario())
    assert [handle.record.job for handle in handles] == ["api.add", "api.add", "api.resize", "api.add", "api.crawl"]
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("kind", ["session", "connection"])
def test_async_code_joins_a_transaction(database, kind):
    app = Sapwood(database)

    async def scenario() -> None:
        engine = create_async_engine(database.replace("sqlite:", "sqlite+aiosqlite:"))
        async with AsyncSession(engine) if kind == "session" else engine.connect() as connection:
            await Add.set(connection=connection).aperform_later(1)
            await connection.rollback()
            handle = await Add.set(connection=connection).aperform_later(2)
            many = await aenqueue_all(
                [Add.set(connection=connection).build(3), Add.set(connection=connection).build(4)]
            )
            assert handle.state is None
            await connection.commit()
            assert [one.state for one in (handle, *many)] == [JobState.READY] * 3
            with pytest.raises(UnsupportedConnection, match="aperform_later"):
                Add.set(connection=connection).perform_later(5)
        await engine.dispose()

    app.migrate()
    asyncio.run(scenario())
    assert [record.args for record in app.adapter().jobs()] == [Add.build(n).draft.args for n in (2, 3, 4)]
    app.close()


def test_a_synchronous_connection_stays_in_the_thread_that_handed_it_in(database):
    app = Sapwood(database)
    app.migrate()
    engine = create_engine(database, connect_args={"check_same_thread": True})

    async def scenario() -> None:
        with Session(engine) as session:
            await Add.set(connection=session).aperform_later(1)
            session.commit()

    asyncio.run(scenario())
    assert len(app.adapter().jobs()) == 1
    engine.dispose()
    app.close()


# --- handles ---


def test_a_handle_follows_its_job(app):
    kept, gone = Add.perform_later(1), Forgets.perform_later()
    assert (kept.state, gone.state) == (JobState.READY, JobState.READY)
    work(app)
    assert (kept.state, gone.state, gone.record) == (JobState.SUCCEEDED, None, None)
    assert kept.result() == 2


def test_a_result_keeps_its_type(app):
    handle = Fetch.perform_later("u")
    work(app)
    assert handle.result(timeout=1) == b"u"
    assert asyncio.run(handle.aresult(timeout=1)) == b"u"


@pytest.mark.parametrize("asynchronously", [True, False])
def test_a_result_is_waited_for(app, asynchronously):
    handle = Add.perform_later(1)
    worker = threading.Thread(target=work, args=(app,))
    worker.start()
    result = asyncio.run(handle.aresult(timeout=20)) if asynchronously else handle.result(timeout=20)
    worker.join()
    assert result == 2


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_result_that_is_late_is_a_timeout(app, timeout):
    handle = Add.perform_later(1)
    with pytest.raises(ResultTimeout, match=str(handle.id)):
        handle.result(timeout=timeout)
    with pytest.raises(ResultTimeout):
        asyncio.run(handle.aresult(timeout=timeout))


def test_the_result_of_a_failed_job_is_its_error(app):
    handle = Fails.perform_later()
    work(app)
    with pytest.raises(JobFailed, match="bad luck"):
        handle.result(timeout=0)


def test_the_result_of_a_cancelled_job_is_an_error(app):
    handle = Add.perform_later(1)
    app.adapter().cancel([handle.record])
    with pytest.raises(JobFailed, match="cancelled"):
        handle.result(timeout=0)


def test_a_job_that_keeps_nothing_has_no_result(app):
    handle = Forgets.perform_later()
    work(app)
    with pytest.raises(ResultUnavailable, match="keep=True"):
        handle.result(timeout=0)


def test_a_result_that_could_not_be_kept_is_not_passed_off_as_none(app, caplog):
    class Odd(Job, name="api.odd", keep=True):
        def perform(self) -> object:
            return object()

    handle = Odd.perform_later()
    work(app)
    assert handle.state is JobState.SUCCEEDED
    with pytest.raises(ResultUnavailable):
        handle.result(timeout=0)


# --- the context ---


def test_a_context_needs_no_arguments_and_does_not_change():
    context = JobContext()
    assert (context.job_id, context.attempt, context.stopping) == (0, 1, False)
    with pytest.raises(AttributeError):
        context.attempt = 2


def test_the_idempotency_key_is_the_same_in_every_try():
    assert JobContext(job_id=7, attempt=1).idempotency_key == JobContext(job_id=7, attempt=2).idempotency_key
    assert JobContext(job_id=7).idempotency_key != JobContext(job_id=8).idempotency_key


def test_a_job_may_ask_whether_its_worker_stops():
    assert JobContext(is_stopping=lambda: True).stopping is True
