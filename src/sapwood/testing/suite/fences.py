# ruff: noqa: D103 - the name of a case is its sentence, and its numbers are the example
"""What came too late: outcomes of claims that are over, and acts of operators on what has moved on."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from sapwood.adapters.base import Settlement
from sapwood.lifecycle import Edit, Failed, Outcome, Released, Retried, Snoozed, Succeeded
from sapwood.record import JobRecord, JobState
from sapwood.testing.suite.bench import BOOM, CLAIMED, ENDED, NOW, Bench, at, draft, ids, same
from sapwood.testing.suite.case import Chapter
from sapwood.testing.suite.outcomes import OUTCOMES

chapter = Chapter("fences")

# --- outcomes -------------------------------------------------------------------------------------------------------


def _released(bench: Bench, record: JobRecord) -> None:
    del record
    bench.adapter.release("w1", now=ENDED)


def _claimed_again(bench: Bench, record: JobRecord) -> None:
    bench.adapter.release("w1", now=ENDED)
    same(ids(bench.claim(now=ENDED)), [record.id], "the job claimed again")


def _rescued(bench: Bench, record: JobRecord) -> None:
    del record
    bench.adapter.rescue("w1", now=ENDED)


def _rescued_and_claimed(bench: Bench, record: JobRecord) -> None:
    bench.adapter.rescue("w1", notes={}, now=ENDED)
    bench.register("w2")
    same(ids(bench.claim("w2", now=ENDED)), [record.id], "the job claimed by another")


def _settled(bench: Bench, record: JobRecord) -> None:
    bench.settle(record, Succeeded(keep=True), now=ENDED)


def _deleted(bench: Bench, record: JobRecord) -> None:
    del record
    bench.adapter.clear(running=True)
    bench.ready()


SITUATIONS: Mapping[str, Callable[[Bench, JobRecord], None]] = {
    "after its worker released it": _released,
    "after its worker claimed it again": _claimed_again,
    "after its worker was rescued": _rescued,
    "after another claimed it": _rescued_and_claimed,
    "a second time": _settled,
    "after it was deleted": _deleted,
}

DISTINCT = [name for name in OUTCOMES if name not in {"retried at once", "snoozed for no time"}]
"""The outcomes that are written in different ways."""


def _changes_nothing(bench: Bench, worker: str, settlement: Settlement) -> None:
    before = bench.everything()
    history = list(bench.adapter.attempts(settlement.record.id))
    same(bench.adapter.settle(worker, [settlement], now=NOW), frozenset(), "the ids written")
    same(bench.everything(), before, "the jobs")
    same(list(bench.adapter.attempts(settlement.record.id)), history, "the failed tries")


@chapter.table({f"{name}, {when}": (OUTCOMES[name], SITUATIONS[when]) for name in DISTINCT for when in SITUATIONS})
def an_outcome_is_refused(bench: Bench, outcome: Outcome, moved_on: Callable[[Bench, JobRecord], None]) -> None:
    (record,) = bench.running()
    moved_on(bench, record)
    _changes_nothing(bench, "w1", Settlement(record, outcome))


@chapter.table({name: (OUTCOMES[name],) for name in DISTINCT})
def an_outcome_of_anothers_claim_is_refused(bench: Bench, outcome: Outcome) -> None:
    (record,) = bench.running()
    bench.register("w2")
    _changes_nothing(bench, "w2", Settlement(record, outcome))


@chapter.table({"of the past": (0,), "of the future": (2,)})
def a_token_is_refused(bench: Bench, token: int) -> None:
    (record,) = bench.running()
    _changes_nothing(bench, "w1", Settlement(replace(record, lock_token=token), Succeeded()))


@chapter.case
def one_refused_among_good_ones_is_the_only_one_missing(bench: Bench) -> None:
    claimed = bench.running(5)
    stolen = claimed[2]
    bench.adapter.release("w1", held=[(one.id, one.lock_token) for one in claimed if one is not stolen], now=ENDED)
    before = bench.look(stolen.id)
    outcomes: list[Outcome] = [Succeeded(), Retried(60, BOOM), Failed(BOOM), Snoozed(60), Released()]
    batch = [Settlement(record, outcome) for record, outcome in zip(claimed, outcomes, strict=True)]

    same(bench.adapter.settle("w1", batch, now=NOW), frozenset(ids(claimed)) - {stolen.id}, "the ids written")

    same(bench.look(stolen.id), before, "the one refused")
    states = [record and record.state for record in (bench.adapter.get(one.id) for one in claimed)]
    expected = [None, JobState.SCHEDULED, JobState.READY, JobState.SCHEDULED, JobState.READY]
    same(states, expected, "the states left")


@chapter.case
def of_an_old_and_a_current_claim_in_one_batch_the_current_one_counts(bench: Bench) -> None:
    (old,) = bench.running()
    bench.adapter.release("w1", now=ENDED)
    (current,) = bench.claim(now=ENDED)
    batch = [Settlement(current, Snoozed(60)), Settlement(old, Failed(BOOM))]
    bench.adapter.settle("w1", batch, now=NOW)
    after = bench.look(old.id)
    same((after.state, after.last_error), (JobState.SCHEDULED, None), "state and error")
    same(list(bench.adapter.attempts(old.id)), [], "the failed tries")


@chapter.case
def a_claim_that_is_settled_twice_in_one_batch_is_written_once(bench: Bench) -> None:
    (record,) = bench.running()
    batch = [Settlement(record, Retried(60, BOOM)), Settlement(record, Retried(90, BOOM))]
    same(bench.adapter.settle("w1", batch, now=NOW), {record.id}, "the ids written")
    same(bench.look(record.id).run_at, at(160), "the moment of the next try")
    same(len(bench.adapter.attempts(record.id)), 1, "how many tries are told")


@chapter.case
def a_batch_of_nothing_writes_nothing(bench: Bench) -> None:
    (record,) = bench.running()
    same(bench.adapter.settle("w1", [], now=NOW), frozenset(), "the ids written")
    same(bench.look(record.id), record, "the job")


@chapter.case
def a_thousand_outcomes_are_written_in_one_batch(bench: Bench) -> None:
    claimed = bench.running(1000)
    kinds: tuple[Outcome, ...] = (Succeeded(), Retried(60, BOOM), Succeeded(keep=True), Snoozed(5))
    batch = [Settlement(record, kinds[i % 4]) for i, record in enumerate(claimed)]
    same(len(bench.adapter.settle("w1", batch, now=NOW)), 1000, "how many were written")
    counts = {("here", JobState.SCHEDULED): 500, ("here", JobState.SUCCEEDED): 250}
    same(dict(bench.adapter.counts()), counts, "what is left")


@chapter.case
def each_failure_of_a_batch_keeps_its_own_words(bench: Bench) -> None:
    claimed = bench.running(3)
    failures = [replace(BOOM, error=f"Error: {n}", traceback=f"line {n}") for n in range(3)]
    batch = [
        Settlement(claimed[0], Retried(1, failures[0])),
        Settlement(claimed[1], Retried(2, failures[1])),
        Settlement(claimed[2], Failed(failures[2])),
    ]
    bench.adapter.settle("w1", batch, now=NOW)
    left = [bench.look(record.id) for record in claimed]
    same([record.last_error for record in left], [failure.error for failure in failures], "the errors")
    same([record.run_at for record in left[:2]], [at(101), at(102)], "the moments of the next tries")
    told = [[one.traceback for one in bench.adapter.attempts(record.id)] for record in claimed]
    same(told, [[failure.traceback] for failure in failures], "the tracebacks")


# --- acts of operators ----------------------------------------------------------------------------------------------

ACTS: Mapping[str, Callable[[Bench, list[JobRecord]], frozenset[int]]] = {
    "retry": lambda bench, seen: bench.adapter.retry(seen, now=NOW),
    "cancel": lambda bench, seen: bench.adapter.cancel(seen, now=NOW),
    "edit": lambda bench, seen: bench.adapter.edit(seen, Edit(priority=9, run_at=at(900)), now=NOW),
    "delete": lambda bench, seen: bench.adapter.delete(seen),
}


@chapter.table({name: (act,) for name, act in ACTS.items()})
def what_was_seen_in_another_state_is_spared(
    bench: Bench, act: Callable[[Bench, list[JobRecord]], frozenset[int]]
) -> None:
    (seen,) = bench.enqueue(draft(wait=50))
    bench.adapter.cancel([seen], now=ENDED)
    cancelled = bench.look(seen.id)
    bench.adapter.retry([cancelled], now=ENDED)
    ready = bench.look(seen.id)
    bench.adapter.edit([ready], Edit(run_at=at(500)), now=ENDED)
    now = bench.look(seen.id)
    same((now.state, now.lock_token), (seen.state, seen.lock_token), "state and token")
    for moved_on in (cancelled, ready):
        same(act(bench, [moved_on]), frozenset(), f"the ids changed of one seen {moved_on.state}")
    same(bench.look(seen.id), now, "the job")


@chapter.table({name: (act,) for name, act in ACTS.items()})
def what_was_claimed_since_it_was_seen_is_spared(
    bench: Bench, act: Callable[[Bench, list[JobRecord]], frozenset[int]]
) -> None:
    (seen,) = bench.enqueue(draft(wait=5))
    bench.adapter.promote(now=CLAIMED)
    bench.register("w1")
    (claimed,) = bench.claim()
    bench.settle(claimed, Snoozed(300), now=ENDED)
    now = bench.look(seen.id)
    same(now.state, seen.state, "the state")
    same(act(bench, [seen]), frozenset(), "the ids changed")
    same(bench.look(seen.id), now, "the job")


@chapter.table({name: (act,) for name, act in ACTS.items()})
def what_is_gone_since_it_was_seen_is_no_error(
    bench: Bench, act: Callable[[Bench, list[JobRecord]], frozenset[int]]
) -> None:
    (seen,) = bench.enqueue(draft(wait=50))
    bench.adapter.delete([seen])
    (other,) = bench.enqueue(draft(wait=50))
    same(act(bench, [seen]), frozenset(), "the ids changed")
    same(bench.everything(), [other], "the jobs")


@chapter.table({name: (act,) for name, act in ACTS.items()})
def one_spared_among_good_ones_is_the_only_one_missing(
    bench: Bench, act: Callable[[Bench, list[JobRecord]], frozenset[int]]
) -> None:
    seen = bench.enqueue(*(draft(wait=50) for _ in range(4)))
    bench.adapter.cancel([seen[1]], now=ENDED)
    cancelled = bench.look(seen[1].id)
    same(act(bench, seen), frozenset(ids(seen)) - {cancelled.id}, "the ids changed")
    same(bench.look(cancelled.id), cancelled, "the one spared")


@chapter.table({name: (act,) for name, act in ACTS.items()})
def nothing_seen_is_nothing_done(bench: Bench, act: Callable[[Bench, list[JobRecord]], frozenset[int]]) -> None:
    (other,) = bench.enqueue(draft(wait=50))
    same(act(bench, []), frozenset(), "the ids changed")
    same(bench.everything(), [other], "the jobs")


@chapter.table({name: (act,) for name, act in ACTS.items()})
def a_thousand_are_done_in_one_call(bench: Bench, act: Callable[[Bench, list[JobRecord]], frozenset[int]]) -> None:
    seen = bench.enqueue(*(draft(wait=50) for _ in range(1000)))
    same(act(bench, seen), frozenset(ids(seen)), "the ids changed")
