"""A store and its model, led side by side through whatever may happen to them."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import asdict, replace

from model import Model
from sapwood.adapters.base import JobFilter, Settlement
from sapwood.lifecycle import (
    Cancelled,
    Edit,
    Failed,
    Failure,
    Released,
    Retried,
    Snoozed,
    Succeeded,
    Trace,
    Unrecognised,
)
from sapwood.record import JobDraft, JobState, WorkerRecord

QUEUES = ["email", "media", "audit"]
BOOM = Failure("ValueError: boom", "Traceback")

drafts = st.builds(
    JobDraft,
    job=st.just("shop:Job"),
    args=st.just("{}"),
    queue=st.sampled_from(QUEUES),
    priority=st.sampled_from([50, 1, 49, 100]),
    wait=st.sampled_from([0, 0, -30, 20, 20, 60]),
    max_attempts=st.sampled_from([5, 1, 2]),
)
outcomes = st.sampled_from(
    [
        Succeeded(),
        Succeeded(keep=True, result="[1]"),
        Retried(0, BOOM),
        Retried(20, BOOM),
        Failed(BOOM),
        Snoozed(0),
        Snoozed(20),
        Unrecognised(0, replace(BOOM, error="UnknownJob: Job")),
        Cancelled("asked to"),
        Released(),
    ]
)
queues = st.sampled_from([None, None, None, ["email"], ["media", "audit"], ["audit", "email", "nothing"], []])
limits = st.sampled_from([10, 3, 2, 1, 10, 0])
rarely = st.sampled_from([False, False, False, True])
who = st.integers(0, 7)
indices = st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True)
edits = st.builds(
    dict,
    queue=st.sampled_from([None, *QUEUES]),
    priority=st.sampled_from([None, 1, 99]),
    wait=st.sampled_from([None, -5, 0, 30]),
)


class Machine(RuleBasedStateMachine):
    """Does the same to an adapter and to the model, and compares what they answer and what they hold."""

    def __init__(self, adapter, forget_worker):
        super().__init__()
        self.adapter = adapter
        self.forget_worker = forget_worker
        self.model = Model()
        self.now = datetime(2026, 1, 31, 12, 0, 0, 123457, tzinfo=UTC)
        self.names = []
        self.claims = []
        self.seen = []
        self.before = {}

    def teardown(self):
        for worker in self.adapter.workers():
            self.adapter.unregister(worker.id)
        self.adapter.close()

    # --- the application and time ---------------------------------------------------------------------------------

    @initialize(some=st.lists(drafts, min_size=3, max_size=6))
    def begin(self, some):
        self.a_worker_comes()
        self.a_worker_comes()
        self.enqueue(some)

    @precondition(lambda self: len(self.model.rows) < 20)
    @rule(some=st.lists(drafts, min_size=1, max_size=4))
    def enqueue(self, some):
        self.model.enqueue(some, self.now)
        given = self.adapter.enqueue(some, now=self.now)
        assert list(given) == list(self.model.rows)[-len(some) :]

    @rule(seconds=st.sampled_from([30, 20, 0.5, 0]), limit=st.sampled_from([1000, 1, 2, 0]))
    def time_passes(self, seconds, limit):
        self.now += timedelta(seconds=seconds)
        assert self.adapter.promote(limit=limit, now=self.now) == self.model.promote(limit, self.now)

    # --- workers --------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.workers) < 2)
    @rule()
    def a_worker_comes(self):
        name = f"w{len(self.names)}"
        self.names.append(name)
        self.model.workers[name] = 0
        self.adapter.register(
            WorkerRecord(id=name, host="host", pid=1, queues=None, concurrency=5, release="1"), now=self.now
        )

    @precondition(lambda self: self.ready(alone=True) or self.ready(alone=False))
    @rule(who=who, limit=limits)
    def a_worker_takes_what_is_there(self, who, limit):
        self.claim(who, None, limit or 1, bool(self.ready(alone=True)))

    @rule(who=who, queues=queues, limit=limits, alone=rarely)
    def claim(self, who, queues, limit, alone):
        worker = self.worker(who)
        answer = self.adapter.claim(worker, queues=queues, limit=limit, alone=alone, now=self.now)
        self.check_claim(answer, worker, queues, limit, alone)
        self.claims += answer.claimed

    @precondition(lambda self: self.of_one_run())
    @rule(which=indices, stranger=st.none() | who, answered=st.booleans())
    def mark(self, which, stranger, answered):
        held = [claim for name in self.busy() for claim in self.held(name) if claim in self.of_one_run()]
        for claim in self.pick(held or self.of_one_run(), which):
            worker = claim.locked_by if stranger is None else self.worker(stranger)
            marked = self.model.mark(worker, claim, self.now)
            assert self.adapter.mark(worker, claim, now=self.now) == marked
            if marked and answered:
                known = replace(claim, started_at=self.now)
                self.claims = [known if one is claim else one for one in self.claims]

    @precondition(lambda self: self.claims)
    @rule(
        which=indices,
        outcomes=st.lists(outcomes, min_size=1, max_size=3),
        which_claims=st.sampled_from(["held", "late", "any"]),
        stranger=st.none() | who,
    )
    def settle(self, which, outcomes, which_claims, stranger):
        held = [claim for name in self.busy() for claim in self.held(name)]
        claims = self.pick({"held": held, "late": self.late(), "any": ()}[which_claims] or self.claims, which)
        worker = claims[0].locked_by
        if stranger is not None:
            worker = self.worker(stranger, [name for name in self.names[-3:] if name != worker])
        batch = list(zip(claims, outcomes, strict=False))
        expected = self.model.settle(worker, batch, self.now)
        assert self.adapter.settle(worker, [Settlement(*one) for one in batch], now=self.now) == expected

    @precondition(lambda self: self.busy())
    @rule(
        who=who,
        outcomes=st.lists(outcomes, min_size=1, max_size=4),
        queues=queues,
        limit=limits,
        alone=st.booleans(),
    )
    def exchange(self, who, outcomes, queues, limit, alone):
        worker = self.worker(who, self.busy())
        batch = list(zip(self.held(worker), outcomes, strict=False))
        settlements = [Settlement(*one) for one in batch]
        answer = self.adapter.exchange(worker, settlements, queues=queues, limit=limit, alone=alone, now=self.now)
        assert answer.settled == self.model.settle(worker, batch, self.now)
        self.check_claim(answer, worker, queues, limit, alone)
        self.claims += answer.claimed

    @precondition(lambda self: self.model.workers)
    @rule(who=who, limit=limits)
    def a_claims_answer_is_lost(self, who, limit):
        worker = self.worker(who)
        held = [(record.id, record.lock_token) for record in self.held(worker)]
        self.claims += self.adapter.claim(worker, limit=limit, now=self.now).claimed
        self.model.claim(worker, None, limit, False, self.now)
        self.check_release(worker, held)

    @precondition(lambda self: self.names)
    @rule(who=who, holds=st.sampled_from([9, 9, 1, 0]))
    def release(self, who, holds):
        worker = self.worker(who)
        old = [one for one in self.claims[-4:] if not self.model.holds(worker, one)]
        held = self.held(worker)[:holds] + old
        self.check_release(worker, [(record.id, record.lock_token) for record in held])

    @precondition(lambda self: self.names)
    @rule(who=who)
    def beat(self, who):
        worker = self.worker(who)
        if worker in self.model.workers:
            self.model.workers[worker] += 1
        known = {worker} & set(self.model.workers)
        assert self.adapter.beat([worker], now=self.now) == known

    @precondition(lambda self: self.model.workers)
    @rule(who=who)
    def a_worker_ends(self, who):
        idle = [name for name in self.model.workers if name not in self.busy()]
        worker = self.worker(who, who and idle)
        released = self.adapter.unregister(worker, now=self.now)
        self.check_records(released, self.model.unregister(worker, self.now))

    @precondition(lambda self: self.busy())
    @rule(
        who=who,
        traces=st.none() | st.lists(st.sampled_from([Trace.STARTED, *Trace]), min_size=1, max_size=4),
        beat=st.booleans(),
    )
    def a_worker_dies(self, who, traces, beat):
        worker = self.worker(who, who and self.busy())
        claims = [(row["id"], row["lock_token"]) for row in self.model.running(worker)]
        notes = None if traces is None else dict(zip(claims, traces, strict=False))
        counted = self.model.workers.get(worker, 0) if beat else None
        expected = self.model.rescue(worker, counted, notes, self.now)
        rescued = self.adapter.rescue(worker, beat=counted, notes=notes, now=self.now)
        assert (rescued is None) == (expected is None)
        self.check_records(rescued or (), expected or set())

    @precondition(lambda self: self.model.workers)
    @rule(who=who, behind=st.sampled_from([1, -1]))
    def a_worker_that_has_beaten_is_not_rescued(self, who, behind):
        worker = self.worker(who)
        beat = self.model.workers.get(worker, 0) - behind
        assert self.adapter.rescue(worker, beat=beat, now=self.now) is None

    @precondition(lambda self: self.ready(alone=True) or self.ready(alone=False))
    @rule(who=who)
    def a_job_kills_its_worker(self, who):
        self.a_worker_takes_what_is_there(who, 1)
        self.a_worker_dies(who, [Trace.STARTED] * 9, True)
        self.a_worker_comes()

    @precondition(lambda self: self.model.workers)
    @rule(who=who)
    def a_worker_is_forgotten(self, who):
        worker = self.worker(who, self.busy())
        if worker in self.model.workers:
            del self.model.workers[worker]
            self.forget_worker(self.adapter, worker)

    @rule()
    def sweep(self):
        expected = self.model.sweep(self.now)
        self.check_records(self.adapter.sweep(now=self.now), expected)

    # --- operators ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.seen)
    @rule(verb=st.sampled_from(["retry", "cancel", "edit", "delete"]), which=indices, edit=edits)
    def an_operator_acts(self, verb, which, edit):
        seen = self.pick(self.seen, which)
        options = {"now": self.now} if verb != "delete" else {}
        if verb == "edit":
            wait = edit["wait"]
            run_at = None if wait is None else self.now + timedelta(seconds=wait)
            options["edit"] = Edit(queue=edit["queue"], priority=edit["priority"], run_at=run_at)
        expected = getattr(self.model, verb)(seen, **options)
        assert getattr(self.adapter, verb)(seen, **options) == expected

    @precondition(lambda self: len(self.model.rows) > 15)
    @rule(queue=st.sampled_from(QUEUES), running=st.booleans())
    def clear(self, queue, running):
        assert self.adapter.clear(JobFilter(queues=[queue]), running=running) == self.model.clear(queue, running)

    @rule()
    def look_around(self):
        assert self.adapter.counts() == self.model.counts()
        assert self.adapter.next_run_at() == self.model.next_run_at()
        for alone in (False, True):
            assert set(self.adapter.ready_queues(alone=alone)) == self.model.ready_queues(alone)
        assert {one.id: one.beat for one in self.adapter.workers()} == self.model.workers

    @invariant()
    def both_hold_the_same(self):
        stored = self.adapter.jobs(limit=10_000)
        after = {record.id: asdict(record) for record in stored}
        assert after == self.model.rows
        changed = [one for one in self.before | after if self.before.get(one) != after.get(one)]
        for job_id in changed:
            told = [
                (one.attempt, one.worker, one.started_at, one.finished_at, one.error)
                for one in self.adapter.attempts(job_id)
            ]
            assert told == self.model.history.get(job_id, [])
        self.seen += [record for record in stored if record.id in changed]
        self.before = after

    # --- within ---------------------------------------------------------------------------------------------------

    def worker(self, who, names=()):
        """Return one of the workers named, or one that lives, or now and then any that ever came."""
        names = names or (who and list(self.model.workers)) or self.names
        return names[who % len(names)]

    def busy(self):
        """Return the workers that have something to do."""
        return [name for name in self.names if self.model.running(name)]

    def ready(self, *, alone):
        """Return the jobs that may be claimed."""
        return [row for row in self.model.rows.values() if (row["state"], row["alone"]) == (JobState.READY, alone)]

    def held(self, worker):
        """Return the claims that a worker has and knows of."""
        return [one for one in self.claims if self.model.holds(worker, one)]

    def late(self):
        """Return the claims that a worker no longer has, of jobs that it has again."""
        rows = [(claim, self.model.rows.get(claim.id)) for claim in self.claims]
        return [
            claim
            for claim, row in rows
            if row and row["locked_by"] == claim.locked_by and row["lock_token"] != claim.lock_token
        ]

    def of_one_run(self):
        """Return the claims of jobs that are to run once at most: some only, since they come to an end so soon."""
        return [claim for claim in self.claims if claim.id % 4 == 0]

    def pick(self, records, which):
        """Return some of the last records, each job once, however it has fared since."""
        return list({one.id: one for one in (records[-1 - index % len(records)] for index in which)}.values())

    def check_claim(self, answer, worker, queues, limit, alone):
        expected = self.model.claim(worker, queues, limit, alone, self.now)
        assert [asdict(record) for record in answer.claimed] == [self.model.rows[job_id] for job_id in expected]
        assert answer.alive == (worker in self.model.workers)

    def check_release(self, worker, held):
        released = self.adapter.release(worker, held=held, now=self.now)
        self.check_records(released, self.model.release(worker, held, self.now))

    def check_records(self, records, expected):
        assert {record.id: asdict(record) for record in records} == {
            job_id: self.model.rows[job_id] for job_id in expected
        }


def run(store, kind, *, examples, steps):
    """Lead adapters of this kind through so many lives; raise at the first difference from the model."""
    with tempfile.TemporaryDirectory() as folder:
        run_state_machine_as_test(
            lambda: Machine(store.open(kind, Path(folder)), store.helpers.forget_worker),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=True,
                database=None,
                deadline=None,
                # A difference is reported as it was met: what leads to it is short enough to read.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
