"""A store that is away, full or read-only is asked again with patience, told of once, and nobody is ended for it."""

from types import SimpleNamespace

import pytest

from conftest import worker_record
from sapwood import link, outage
from sapwood.adapters.memory import MemoryAdapter
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import StoreFull, StoreUnavailable
from sapwood.events import Events, StoreFailed, StoreRecovered
from sapwood.outage import RETRY_MOST, Outage
from sapwood.plan import Plan, WorkerPlan
from sapwood.supervisor import Supervisor

AWAY, FULL = StoreUnavailable("away"), StoreFull("full")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(outage, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def told():
    return []


@pytest.fixture
def failing(clock, told):
    events = Events()
    events.listen(told.append)
    return Outage("work", events)


def test_an_outage_is_told_of_once_then_once_a_minute(failing, clock, told):
    for _ in range(100):
        failing.failed(AWAY)
        clock.now += 1
    assert [event.again for event in told].count(False) == 2
    assert told[0] == StoreFailed("work", AWAY)


def test_another_kind_of_trouble_is_told_of_at_once(failing, told):
    for error in (AWAY, AWAY, FULL, FULL):
        failing.failed(error)
    assert [event.again for event in told] == [False, True, False, True]


def test_the_end_of_an_outage_is_told_of_once_with_its_length(failing, clock, told):
    failing.ended()
    assert told == []
    failing.failed(AWAY)
    clock.now += 12
    failing.ended()
    failing.ended()
    assert told[1:] == [StoreRecovered("work", 12)]
    failing.failed(AWAY)
    assert told[-1] == StoreFailed("work", AWAY), "the next outage is news"


def test_pauses_grow_and_none_is_long(failing, monkeypatch):
    monkeypatch.setattr(outage.random, "random", lambda: 1.0)
    pauses = [failing.failed(AWAY) for _ in range(30)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.5
    assert max(pauses) == RETRY_MOST


def supervisor_of(store):
    """A supervisor with one ready worker on a store, and what that worker and its killer are told."""
    plan = Plan(
        app="",
        directory="",
        release="",
        command=[],
        workers=[WorkerPlan(name="w", group="default", adapter="default")],
        stores={"default": {}},
    )
    supervisor, told, killed = Supervisor(plan, {"default": store}), [], []
    supervisor.slots[0].process = SimpleNamespace(
        id="w", is_ready=True, link=SimpleNamespace(send=told.append), kill=killed.append
    )
    return supervisor, told, killed


def at(monkeypatch, seconds):
    monkeypatch.setattr("sapwood.supervisor.boot_time", lambda: seconds)


def test_a_supervisor_whose_beat_failed_is_not_ready_until_one_is_good(monkeypatch):
    supervisor, _, _ = supervisor_of(MemoryAdapter())
    at(monkeypatch, 100.0)
    assert not supervisor.is_ready
    supervisor._beaten("default", 100.0, frozenset({"w"}), frozenset())
    assert supervisor.is_ready
    supervisor._failed("default", FULL)
    assert not supervisor.is_ready
    assert supervisor.obstacles == ["full"]
    supervisor._beaten("default", 100.0, frozenset({"w"}), frozenset())
    assert supervisor.is_ready
    supervisor._end()


def test_no_worker_is_started_while_its_store_fails(monkeypatch):
    supervisor, _, _ = supervisor_of(MemoryAdapter())
    at(monkeypatch, 100.0)
    supervisor._beaten("default", 100.0, frozenset(), frozenset())
    supervisor._failed("default", FULL)
    supervisor.slots[0].process = None
    # Nothing could be started here: no command is there.
    supervisor._start_due()
    assert supervisor.slots[0].crashes == 0
    supervisor._end()


def test_where_deaths_are_proven_a_worker_outlives_any_outage(monkeypatch, adapter, database):
    for store, lives in ((adapter, True), (MemoryAdapter(), False)):
        supervisor, told, killed = supervisor_of(store)
        supervisor._beaten("default", 100.0, frozenset({"w"}), frozenset())
        told.clear()
        supervisor._failed("default", FULL)
        for second in range(100, 200):
            at(monkeypatch, float(second))
            supervisor._fence()
        assert (killed == []) is lives
        assert any(isinstance(word, link.Beaten) for word in told) is lives
        assert not supervisor.is_ready
        supervisor._end()


def test_a_worker_of_a_file_that_cannot_beat_is_not_taken_for_dead(adapter, database):
    adapter.register(worker_record("silent"))
    assert adapter.proves_death
    other = SQLAlchemyAdapter(database)
    [worker] = other.workers()
    assert other.is_dead(worker) is False
    other.close()
