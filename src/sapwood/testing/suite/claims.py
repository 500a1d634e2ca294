# ruff: noqa: D103, FBT001 - the name of a case is its sentence, and its numbers are the example
"""Who gets which job, and in what order."""

from collections.abc import Sequence

from sapwood.adapters.base import Settlement
from sapwood.lifecycle import Edit, Released, Retried, Succeeded, Trace
from sapwood.record import JobState
from sapwood.testing.suite.bench import BOOM, ENDED, NOW, STORED, Bench, at, draft, holds, ids, same
from sapwood.testing.suite.case import Chapter

chapter = Chapter("claims")

# --- order ----------------------------------------------------------------------------------------------------------

WAITING = [
    ("email", 50, 0),
    ("media", 50, 0),
    ("email", 10, -1),
    ("media", 10, -3),
    ("audit", 1, -2),
    ("email", 50, -9),
    ("media", 100, -99),
    ("audit", 50, -9),
    ("email", 10, -3),
    ("audit", 10, -3),
    ("email", 50, 0),
]
"""Queue, priority, and ``run_at`` in seconds, in the order of their ids."""

QUEUES: dict[str, Sequence[str] | None] = {
    "all queues": None,
    "one queue": ["email"],
    "two queues": ["media", "audit"],
    "three queues": ["audit", "media", "email"],
    "a queue named twice": ["email", "email", "media"],
    "a queue without jobs": ["nothing", "audit"],
    "no queue": [],
}


@chapter.table({f"{limit} of {name}": (queues, limit) for name, queues in QUEUES.items() for limit in (1, 4, 100)})
def jobs_come_by_priority_then_run_at_then_id(bench: Bench, queues: Sequence[str] | None, limit: int) -> None:
    _store_waiting(bench)
    bench.register("w1")
    same(_taken(bench, queues, limit), _expected(queues)[:limit], "the jobs claimed")


@chapter.table({name: (queues,) for name, queues in QUEUES.items() if queues != []})
def one_claim_goes_on_where_the_last_one_ended(bench: Bench, queues: Sequence[str] | None) -> None:
    _store_waiting(bench)
    bench.register("w1")
    chunks = [_taken(bench, queues, 2) for _ in range(7)]
    same([one for chunk in chunks for one in chunk], _expected(queues), "the jobs claimed, two at a time")


def _store_waiting(bench: Bench) -> None:
    bench.enqueue(*(draft(queue=queue, priority=priority, run_at=at(s)) for queue, priority, s in WAITING))


def _taken(bench: Bench, queues: Sequence[str] | None, limit: int) -> list[tuple[str, int, int]]:
    claimed = bench.claim(queues=queues, limit=limit)
    return [(one.queue, one.priority, round((one.run_at - STORED).total_seconds())) for one in claimed]


def _expected(queues: Sequence[str] | None) -> list[tuple[str, int, int]]:
    # Sorting is stable, which leaves equals in the order of their ids.
    wanted = [job for job in WAITING if queues is None or job[0] in queues]
    return sorted(wanted, key=lambda job: (job[1], job[2]))


@chapter.case
def equals_come_in_the_order_of_their_ids(bench: Bench) -> None:
    stored = bench.ready(50)
    bench.register("w1")
    same(ids(bench.claim(limit=50)), ids(stored), "the jobs claimed")


@chapter.case
def a_microsecond_decides(bench: Bench) -> None:
    later, sooner = bench.enqueue(draft(run_at=at(-1)), draft(run_at=at(-1.000001)))
    bench.register("w1")
    same(ids(bench.claim(limit=2)), [sooner.id, later.id], "the jobs claimed")


@chapter.case
def an_urgent_job_that_comes_late_goes_first(bench: Bench) -> None:
    bench.ready(3, priority=50)
    (urgent,) = bench.ready(priority=49)
    bench.register("w1")
    same(ids(bench.claim()), [urgent.id], "the job claimed")


@chapter.case
def an_edited_job_takes_its_new_place(bench: Bench) -> None:
    first, second, third = bench.ready(3)
    bench.adapter.edit([third], Edit(priority=1), now=STORED)
    bench.adapter.edit([first], Edit(priority=99), now=STORED)
    bench.register("w1")
    same(ids(bench.claim(limit=3)), [third.id, second.id, first.id], "the jobs claimed")


@chapter.case
def a_job_moved_to_another_queue_is_found_there_only(bench: Bench) -> None:
    (moved,) = bench.ready()
    bench.adapter.edit([moved], Edit(queue="there"), now=STORED)
    bench.register("w1")
    same(bench.claim(queues=["here"]), [], "the jobs claimed where it was")
    same(ids(bench.claim(queues=["there"])), [moved.id], "the jobs claimed where it is")


@chapter.table({"large and small letters": ("Mail", "mail"), "a space at the end": ("mail", "mail ")})
def names_of_queues_are_compared_exactly(bench: Bench, name: str, other: str) -> None:
    (job,) = bench.ready(queue=name)
    bench.register("w1")
    same(bench.claim(queues=[other]), [], f"the jobs claimed of {other!r}")
    same(ids(bench.claim(queues=[name])), [job.id], f"the jobs claimed of {name!r}")


@chapter.case
def a_thousand_jobs_of_a_hundred_queues_come_in_one_claim(bench: Bench) -> None:
    stored = bench.enqueue(*(draft(queue=f"q{n % 100}", priority=1 + n % 7) for n in range(1000)))
    bench.register("w1")
    expected = ids(sorted(stored, key=lambda record: (record.priority, record.id)))
    same(ids(bench.claim(limit=1000)), expected, "the jobs claimed")


@chapter.case
def jobs_of_many_hundred_queues_come_in_one_claim(bench: Bench) -> None:
    stored = bench.enqueue(*(draft(queue=f"q{n}", priority=1 + n % 7) for n in range(1001)))
    bench.register("w1")
    expected = ids(sorted(stored, key=lambda record: (record.priority, record.id)))
    same(ids(bench.claim(limit=20)), expected[:20], "the jobs claimed of all queues")
    left = [job for job in expected[20:] if job < stored[600].id]
    same(ids(bench.claim(limit=600, queues=[f"q{n}" for n in range(600)])), left, "the jobs claimed of 600 queues")


# --- what a claim writes ----------------------------------------------------------------------------------------------


@chapter.case
def a_claim_returns_the_rows_as_they_are(bench: Bench) -> None:
    claimed = bench.running(3)
    same(claimed, list(map(bench.look, ids(claimed))), "the records returned")


@chapter.case
def every_claim_raises_token_and_attempts(bench: Bench) -> None:
    (record,) = bench.running()
    for turn in (2, 3, 4):
        bench.settle(record, Retried(0, BOOM), now=ENDED)
        (record,) = bench.claim(now=ENDED)
        same((record.lock_token, record.attempts), (turn, turn), "token and attempts")


@chapter.case
def a_claim_given_back_keeps_its_token(bench: Bench) -> None:
    (record,) = bench.running()
    for turn in (2, 3, 4):
        bench.settle(record, Released(), now=ENDED)
        (record,) = bench.claim(now=ENDED)
        same((record.lock_token, record.attempts), (turn, 1), "token and attempts")


@chapter.case
def a_claimed_job_is_not_claimed_again(bench: Bench) -> None:
    bench.running()
    bench.register("w2")
    same(bench.claim("w2") + bench.claim("w1"), [], "the jobs claimed")


@chapter.case
def two_workers_share_what_is_there(bench: Bench) -> None:
    stored = bench.ready(5)
    bench.register("w1", "w2")
    same(ids(bench.claim("w1", limit=2)), ids(stored[:2]), "the jobs of the first")
    same(ids(bench.claim("w2", limit=9)), ids(stored[2:]), "the jobs of the second")


@chapter.case
def a_job_beyond_its_last_try_may_still_be_claimed(bench: Bench) -> None:
    (record,) = bench.running(max_attempts=1)
    bench.settle(record, Retried(0, BOOM), now=ENDED)
    (again,) = bench.claim(now=ENDED)
    same((again.attempts, again.max_attempts), (2, 1), "attempts and most attempts")


# --- the guard --------------------------------------------------------------------------------------------------------


@chapter.case
def a_worker_that_was_never_known_claims_nothing(bench: Bench) -> None:
    _claims_nothing(bench, "w9")


@chapter.case
def a_worker_that_was_rescued_claims_nothing(bench: Bench) -> None:
    bench.register("w1", "w2")
    bench.adapter.rescue("w1", now=ENDED)
    _claims_nothing(bench, "w1")


@chapter.case
def a_worker_that_ended_claims_nothing(bench: Bench) -> None:
    bench.register("w1", "w2")
    bench.adapter.unregister("w1", now=ENDED)
    _claims_nothing(bench, "w1")


def _claims_nothing(bench: Bench, worker: str) -> None:
    stored = bench.ready(2)
    answer = bench.adapter.claim(worker, limit=2, now=NOW)
    same((list(answer.claimed), answer.settled, answer.alive), ([], frozenset(), False), "the answer")
    same(bench.everything(), stored, "the jobs")


@chapter.table({"known": ("w1", True), "unknown": ("w9", False)})
def a_claim_of_nothing_still_tells_who_lives(bench: Bench, worker: str, alive: bool) -> None:
    stored = bench.ready(2)
    bench.register("w1")
    answer = bench.adapter.claim(worker, limit=0, now=NOW)
    same((list(answer.claimed), answer.alive), ([], alive), "the answer")
    same(bench.everything(), stored, "the jobs")


@chapter.case
def a_claim_with_nothing_to_claim_is_alive(bench: Bench) -> None:
    bench.register("w1")
    answer = bench.adapter.claim("w1", limit=5, now=NOW)
    same((list(answer.claimed), answer.settled, answer.alive), ([], frozenset(), True), "the answer")


# --- alone ------------------------------------------------------------------------------------------------------------


def _set_apart(bench: Bench, count: int) -> list[int]:
    """Bring jobs that each died once, the last of them the most urgent, among others that did not."""
    claimed = bench.running(count)
    notes = {(record.id, record.lock_token): Trace.STARTED for record in claimed}
    bench.adapter.rescue("w1", notes=notes, now=ENDED)
    bench.ready(2)
    bench.adapter.edit([bench.look(claimed[-1].id)], Edit(priority=1), now=ENDED)
    bench.register("w1")
    return ids([claimed[-1], *claimed[:-1]])


@chapter.table({"one": (1,), "all": (9,)})
def jobs_set_apart_come_in_order(bench: Bench, limit: int) -> None:
    apart = _set_apart(bench, 3)
    same(ids(bench.claim(limit=limit, alone=True)), apart[:limit], "the jobs claimed")


@chapter.case
def jobs_set_apart_come_of_the_queues_asked_for(bench: Bench) -> None:
    apart = _set_apart(bench, 2)
    same(bench.claim(limit=9, alone=True, queues=["there"]), [], "the jobs claimed of another queue")
    same(ids(bench.claim(limit=9, alone=True, queues=["there", "here"])), apart, "the jobs claimed of both")


@chapter.case
def jobs_set_apart_are_stepped_over_by_others(bench: Bench) -> None:
    apart = _set_apart(bench, 3)
    claimed = bench.claim(limit=9)
    same(len(claimed), 2, "how many were claimed")
    holds(not set(ids(claimed)) & set(apart), "a job set apart was claimed among others")


@chapter.case
def a_job_set_apart_stays_so_while_it_waits_for_its_next_try(bench: Bench) -> None:
    apart = _set_apart(bench, 1)
    (record,) = bench.claim(alone=True)
    bench.settle(record, Retried(60, BOOM), now=ENDED)
    bench.adapter.promote(now=NOW)
    bench.claim(limit=9, now=NOW)
    same(bench.look(apart[0]).state, JobState.READY, "its state after a claim of others")
    same(ids(bench.claim(alone=True, now=NOW)), apart, "the jobs claimed alone")


@chapter.case
def an_exchange_may_claim_what_was_set_apart(bench: Bench) -> None:
    apart = _set_apart(bench, 2)
    first = bench.adapter.exchange("w1", [], limit=1, alone=True, now=NOW)
    second = bench.adapter.exchange("w1", [Settlement(first.claimed[0], Succeeded())], limit=1, alone=True, now=NOW)
    same(ids([*first.claimed, *second.claimed]), apart, "the jobs claimed")
