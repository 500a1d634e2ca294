"""A supervisor's proofs of life: beats that nothing holds up, and that say no more than is known."""

import threading
from types import SimpleNamespace

from conftest import worker_record
from sapwood import link
from sapwood.adapters.memory import MemoryAdapter
from sapwood.events import Events
from sapwood.plan import Plan, WorkerPlan
from sapwood.record import JobDraft
from sapwood.steward import Steward, Superior, Wards
from sapwood.supervisor import Supervisor
from sapwood.timing import Timing

QUICK = Timing(beat=0.01, look=0.01, gap=10, fence=20, rescue=30)


class Listener(Superior):
    """Answers for nobody, and remembers what it is told."""

    hungry = False

    def __init__(self):
        self.heard = []
        self.beats = threading.Semaphore(0)
        self.looked = threading.Semaphore(0)

    def wards(self):
        return Wards()

    def is_hungry(self):
        self.looked.release()
        return self.hungry

    def beaten(self, began, known, lost):
        self.beats.release()

    def failed(self, error):
        self.heard.append(error)

    def news(self, queues, *, apart):
        self.heard.append((sorted(queues), apart))


def steward(store, superior, *, poll_interval=0.01):
    return Steward(store, QUICK, poll_interval=poll_interval, events=Events(), superior=superior)


def test_a_rescue_that_hangs_holds_up_no_beat():
    hangs, goes_on, listener = threading.Event(), threading.Event(), Listener()

    class Hanging(MemoryAdapter):
        def is_dead(self, worker):
            return True

        def rescue(self, worker, **options):
            hangs.set()
            goes_on.wait()

    store = Hanging()
    store.register(worker_record("dead"))
    tended = steward(store, listener)
    tended.start()
    try:
        assert hangs.wait(10)
        while listener.beats.acquire(blocking=False):
            pass
        assert all(listener.beats.acquire(timeout=10) for _ in range(5))
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


def test_a_wake_up_is_passed_over_while_every_worker_is_busy_and_counts_when_one_is_not():
    store, listener = MemoryAdapter(), Listener()
    tended = steward(store, listener, poll_interval=3600)
    tended.start()
    try:
        # The first turn is a poll; it asks nobody.
        assert listener.beats.acquire(timeout=10)
        store.enqueue([JobDraft(job="a", args="{}")])
        assert listener.looked.acquire(timeout=10)
        assert listener.heard == []
        listener.hungry = True
        tended.look_again()
        assert listener.looked.acquire(timeout=10)
    finally:
        tended.stop(patience=10)
    assert listener.heard == [(["default"], False)]


def test_one_job_wakes_one_worker_and_each_queue_one_that_serves_it():
    told = {"a.1": [], "a.2": [], "b.1": [], "all.1": []}
    served = {"a.1": ["a"], "a.2": ["a"], "b.1": ["b"], "all.1": None}
    processes = [
        SimpleNamespace(
            id=name,
            hungry=True,
            news_told=0,
            plan=WorkerPlan(name=name, group="", adapter="default", queues=served[name]),
            link=SimpleNamespace(send=told[name].append),
        )
        for name in told
    ]
    supervisor = supervisor_with(*processes)
    for slot, process in zip(supervisor.slots, processes, strict=True):
        slot.plan = process.plan
    supervisor._news("default", ["a"], apart=False)
    assert {name: len(words) for name, words in told.items()} == {"a.1": 1, "a.2": 0, "b.1": 0, "all.1": 0}
    supervisor._news("default", ["a", "b", "c"], apart=False)
    assert {name: len(words) for name, words in told.items()} == {"a.1": 1, "a.2": 1, "b.1": 1, "all.1": 1}
    supervisor._end()
