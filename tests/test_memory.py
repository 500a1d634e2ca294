"""What is particular to jobs kept in memory."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from conftest import worker_record
from sapwood.adapters.base import Settlement
from sapwood.adapters.memory import MemoryAdapter
from sapwood.lifecycle import Edit, Failure, Released, Retried, Succeeded
from sapwood.record import JobDraft

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DRAFT = JobDraft(job="shop.jobs:Mail", args="{}")


@pytest.fixture
def memory():
    adapter = MemoryAdapter()
    adapter.register(worker_record("w1"), now=NOW)
    return adapter


@pytest.fixture
def wakes(memory):
    """The calls of a listener, as a list that grows."""
    calls = []
    memory.listen(lambda: calls.append("woken"))
    return calls


def claim(memory, limit=1):
    return memory.claim("w1", limit=limit, now=NOW).claimed


def test_each_adapter_is_a_store_of_its_own(memory):
    memory.enqueue([DRAFT])
    assert MemoryAdapter().jobs() == []


def test_a_ready_job_wakes_who_listens_once_per_verb(memory, wakes):
    memory.enqueue([DRAFT, DRAFT], now=NOW)
    assert wakes == ["woken"]


def test_a_scheduled_job_wakes_nobody_until_it_is_promoted(memory, wakes):
    memory.enqueue([JobDraft(job="a", args="{}", wait=60)], now=NOW)
    memory.promote(now=NOW)
    assert wakes == []
    memory.promote(now=NOW + timedelta(seconds=60))
    assert wakes == ["woken"]


@pytest.mark.parametrize(
    "act",
    [
        lambda memory, record: memory.settle("w1", [Settlement(record, Released())], now=NOW),
        lambda memory, record: memory.settle("w1", [Settlement(record, Retried(0, Failure("boom")))], now=NOW),
        lambda memory, record: memory.release("w1", now=NOW),
        lambda memory, record: memory.unregister("w1", now=NOW),
        lambda memory, record: memory.rescue("w1", now=NOW),
    ],
    ids=["given back", "retried at once", "released", "unregistered", "rescued"],
)
def test_whatever_makes_a_job_ready_again_wakes_who_listens(memory, act):
    memory.enqueue([DRAFT], now=NOW)
    (record,) = claim(memory)
    calls = []
    memory.listen(lambda: calls.append("woken"))
    act(memory, record)
    assert calls == ["woken"]


def test_what_makes_no_job_ready_wakes_nobody(memory):
    memory.enqueue([DRAFT, DRAFT], now=NOW)
    calls = []
    memory.listen(lambda: calls.append("woken"))
    done = claim(memory)
    memory.settle("w1", [Settlement(done[0], Succeeded())], now=NOW)
    memory.beat(["w1"], now=NOW)
    memory.clear()
    assert calls == []


def test_who_stopped_listening_is_woken_no_more(memory):
    calls = []
    ends = [memory.listen(lambda name=name: calls.append(name)) for name in ("a", "b")]
    ends[0]()
    ends[0]()
    memory.enqueue([DRAFT])
    assert calls == ["b"]


def test_a_listener_may_use_the_adapter(memory):
    seen = []
    memory.listen(lambda: seen.extend(claim(memory)))
    given = memory.enqueue([DRAFT], now=NOW)
    assert [record.id for record in seen] == given


def test_a_job_that_often_changed_its_place_is_claimed_once(memory):
    (job_id,) = memory.enqueue([DRAFT], now=NOW)
    for priority in (1, 50, 1, 50):
        memory.edit([memory.get(job_id)], Edit(priority=priority), now=NOW)
    memory.edit([memory.get(job_id)], Edit(args='{"x": 1}'), now=NOW)
    assert [record.id for record in claim(memory, limit=9)] == [job_id]
    assert claim(memory, limit=9) == []


def test_a_claim_costs_the_same_however_many_wait(memory):
    memory.enqueue([DRAFT] * 100_000, now=NOW)
    began = time.perf_counter()
    for _ in range(1000):
        assert len(claim(memory)) == 1
    # Looking at every job would take some milliseconds per claim, and so some seconds in all.
    assert time.perf_counter() - began < 1
