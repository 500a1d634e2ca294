"""A supervisor's proofs of life: beats that nothing holds up, and that say no more than is known."""

import threading
from types import SimpleNamespace

from conftest import worker_record
from sapwood import link
from sapwood.adapters.memory import MemoryAdapter
from sapwood.events import Events
from sapwood.plan import Plan, WorkerPlan
from sapwood.steward import Steward, Wards
from sapwood.supervisor import Supervisor
from sapwood.timing import Timing

QUICK = Timing(beat=0.01, look=0.01, gap=10, fence=20, rescue=30)


def steward(store, *, beaten):
    return Steward(
        store,
        QUICK,
        poll_interval=0.01,
        events=Events(),
        wards=Wards,
        beaten=beaten,
        failed=lambda error: None,
        news=lambda queues, apart: None,
    )


def test_a_rescue_that_hangs_holds_up_no_beat():
    hangs, goes_on, beats = threading.Event(), threading.Event(), threading.Semaphore(0)

    class Hanging(MemoryAdapter):
        def is_dead(self, worker):
            return True

        def rescue(self, worker, **options):
            hangs.set()
            goes_on.wait()

    store = Hanging()
    store.register(worker_record("dead"))
    tended = steward(store, beaten=lambda *_: beats.release() if hangs.is_set() else None)
    tended.start()
    try:
        assert hangs.wait(10)
        assert all(beats.acquire(timeout=10) for _ in range(5))
    finally:
        goes_on.set()
        tended.stop(patience=10)


def supervisor_with(*processes):
    workers = [WorkerPlan(name=process.id, group="default", adapter="default") for process in processes]
    plan = Plan(app="", directory="", release="", command=[], workers=workers, stores={"default": {}})
    supervisor = Supervisor(plan, {"default": MemoryAdapter()})
    for slot, process in zip(supervisor.slots, processes, strict=True):
        slot.process = process
    return supervisor


def test_a_worker_hears_only_of_beats_that_were_for_it():
    told = {"old": [], "new": []}
    old, new = (SimpleNamespace(id=name, link=SimpleNamespace(send=told[name].append)) for name in told)
    supervisor = supervisor_with(old, new)
    supervisor._beaten("default", 5.0, frozenset({"old"}), frozenset())
    supervisor._end()
    assert told == {"old": [link.Beaten(5.0)], "new": []}
