# ruff: noqa: D103, FBT001 - the name of a case is its sentence, and its numbers are the example
"""What operators see, and what they clear away."""

from collections.abc import Mapping

from sapwood.adapters.base import JobFilter, Settlement
from sapwood.lifecycle import Failed, Outcome, Retried, Succeeded, Trace
from sapwood.record import JobRecord, JobState
from sapwood.testing.suite.bench import BOOM, CLAIMED, ENDED, NOW, Bench, at, draft, ids, same
from sapwood.testing.suite.case import Chapter

chapter = Chapter("reads")

SCHEDULED, READY, RUNNING = JobState.SCHEDULED, JobState.READY, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED

FILTERS: Mapping[str, JobFilter | None] = {
    "no filter": None,
    "an empty filter": JobFilter(),
    "one state": JobFilter(states=[READY]),
    "two states": JobFilter(states={FAILED, SCHEDULED}),
    "the running": JobFilter(states=[RUNNING]),
    "no state": JobFilter(states=[]),
    "one queue": JobFilter(queues=["email"]),
    "two queues": JobFilter(queues=("email", "media")),
    "an unknown queue": JobFilter(queues=["nothing"]),
    "no queue": JobFilter(queues=[]),
    "one class": JobFilter(jobs=["shop:B"]),
    "state and queue": JobFilter(states=[SUCCEEDED, READY], queues=["email"]),
    "state, queue and class": JobFilter(states=[READY, FAILED], queues=["media", "audit"], jobs=["shop:A"]),
}


@chapter.case
def the_queues_that_have_ready_jobs_are_told(bench: Bench) -> None:
    same(list(bench.adapter.ready_queues()), [], "the queues of an empty store")
    bench.enqueue(draft(queue="email"), draft(queue="email"), draft(queue="media"), draft(queue="later", wait=60))
    bench.running(1, queue="busy")
    same(sorted(bench.adapter.ready_queues()), ["email", "media"], "the queues")
    same(list(bench.adapter.ready_queues(alone=True)), [], "the queues with jobs set apart")


@chapter.case
def the_queues_of_jobs_set_apart_are_told_apart(bench: Bench) -> None:
    (record,) = bench.running(1, queue="deadly")
    bench.adapter.rescue("w1", notes={record.claim: Trace.STARTED}, now=NOW)
    same(list(bench.adapter.ready_queues()), [], "the queues")
    same(list(bench.adapter.ready_queues(alone=True)), ["deadly"], "the queues with jobs set apart")


def _store(bench: Bench) -> list[JobRecord]:
    """Store a job of each class and queue in each state, and return them."""
    kinds = [(queue, job) for queue in ("email", "media", "audit") for job in ("shop:A", "shop:B")]
    claimable = [draft(queue=queue, job=job, priority=1) for queue, job in kinds for _ in range(3)]
    cancellable = [draft(queue=queue, job=job) for queue, job in kinds]
    waiting = [draft(queue=queue, job=job, wait=wait) for queue, job in kinds for wait in (0, 3600)]
    bench.enqueue(*claimable)
    bench.register("w1")
    claimed = bench.claim(limit=len(claimable))
    outcomes: tuple[Outcome, Outcome] = (Succeeded(keep=True), Failed(BOOM))
    settlements = [Settlement(one, outcomes[n % 3]) for n, one in enumerate(claimed) if n % 3 < len(outcomes)]
    bench.adapter.settle("w1", settlements, now=ENDED)
    bench.adapter.cancel(bench.enqueue(*cancellable), now=ENDED)
    bench.enqueue(*waiting)
    return [bench.look(one.id) for one in bench.everything()]


def _matches(record: JobRecord, filter: JobFilter | None) -> bool:
    if filter is None:
        return True
    return (
        (filter.states is None or record.state in filter.states)
        and (filter.queues is None or record.queue in filter.queues)
        and (filter.jobs is None or record.job in filter.jobs)
    )


@chapter.table({name: (wanted,) for name, wanted in FILTERS.items()})
def jobs_are_listed_by_id_with(bench: Bench, filter: JobFilter | None) -> None:
    expected = [one for one in _store(bench) if _matches(one, filter)]
    same(list(bench.adapter.jobs(filter)), expected, "the jobs")


@chapter.table({name: (wanted,) for name, wanted in FILTERS.items()})
def jobs_are_cleared_with(bench: Bench, filter: JobFilter | None) -> None:
    _clears(bench, filter, running=False)


@chapter.table({name: (FILTERS[name],) for name in ("no filter", "the running", "one queue", "one class")})
def running_jobs_are_cleared_too_with(bench: Bench, filter: JobFilter | None) -> None:
    _clears(bench, filter, running=True)


def _clears(bench: Bench, filter: JobFilter | None, *, running: bool) -> None:
    stored = _store(bench)
    gone = [one for one in stored if _matches(one, filter) and (running or one.state is not RUNNING)]
    same(bench.adapter.clear(filter, running=running), len(gone), "how many were cleared")
    same(bench.everything(), [one for one in stored if one not in gone], "the jobs left")
    failed = [one for one in gone if one.state is FAILED]
    same([list(bench.adapter.attempts(one.id)) for one in failed], [[]] * len(failed), "the history of the cleared")


@chapter.table({f"{limit} a page": (limit,) for limit in (1, 4, 5, 100)})
def pages_follow_one_another(bench: Bench, limit: int) -> None:
    bench.ready(3)
    bench.adapter.delete(bench.ready())
    stored = [*bench.everything(), *bench.ready(9)]
    pages: list[JobRecord] = []
    while page := bench.adapter.jobs(after=pages[-1].id if pages else 0, limit=limit):
        same(len(page), min(limit, len(stored) - len(pages)), "the length of a page")
        pages += page
    same(pages, stored, "the jobs of all pages")


@chapter.case
def a_page_holds_a_hundred_when_no_limit_is_named(bench: Bench) -> None:
    bench.ready(101)
    same(len(bench.adapter.jobs()), 100, "how many jobs are on it")


@chapter.case
def pages_keep_to_the_filter(bench: Bench) -> None:
    mixed = [draft(queue=queue) for queue in ("a", "b", "a", "b", "a")]
    stored = bench.enqueue(*mixed)
    page = bench.adapter.jobs(JobFilter(queues=["a"]), after=stored[0].id, limit=1)
    same(ids(page), [stored[2].id], "the second page")


@chapter.case
def jobs_are_counted_by_queue_and_state(bench: Bench) -> None:
    _store(bench)
    states = (SCHEDULED, READY, RUNNING, SUCCEEDED, FAILED, CANCELLED)
    expected = {(queue, state): 2 for queue in ("email", "media", "audit") for state in states}
    counts = bench.adapter.counts()
    same(dict(counts), expected, "the counts")
    same({type(state) for _, state in counts}, {JobState}, "the type of the states")


@chapter.case
def an_unknown_id_is_no_job(bench: Bench) -> None:
    (record,) = bench.ready()
    answers = [(bench.adapter.get(n), list(bench.adapter.attempts(n))) for n in (0, -1, record.id + 1, 2**62)]
    same(answers, [(None, [])] * 4, "the answers")


# --- the next moment --------------------------------------------------------------------------------------------------


@chapter.case
def the_next_moment_is_the_earliest_of_the_scheduled(bench: Bench) -> None:
    waits = [(50, 300), (1, 900), (100, 200), (50, 250)]
    bench.enqueue(*(draft(priority=priority, wait=wait) for priority, wait in waits))
    same(bench.adapter.next_run_at(), at(200), "the next moment")


@chapter.case
def the_next_moment_heeds_only_the_scheduled(bench: Bench) -> None:
    _store(bench)
    cancelled, deleted, moved = bench.enqueue(draft(wait=1), draft(wait=2), draft(wait=3))
    bench.adapter.cancel([cancelled], now=NOW)
    bench.adapter.delete([deleted])
    bench.adapter.retry([moved], now=NOW)
    same(bench.adapter.next_run_at(), at(3600), "the next moment")


@chapter.case
def there_is_no_next_moment_once_all_is_promoted(bench: Bench) -> None:
    bench.enqueue(draft(wait=50), draft(wait=60))
    bench.adapter.promote(limit=1, now=NOW)
    same(bench.adapter.next_run_at(), at(60), "the next moment after one")
    bench.adapter.promote(now=NOW)
    same(bench.adapter.next_run_at(), None, "the next moment after all")


@chapter.case
def a_retry_sets_the_next_moment(bench: Bench) -> None:
    (record,) = bench.running()
    bench.settle(record, Retried(60, BOOM))
    same(bench.adapter.next_run_at(), at(160), "the next moment")


# --- history ----------------------------------------------------------------------------------------------------------


def _failed_thrice(bench: Bench) -> JobRecord:
    (record,) = bench.running()
    for turn in (1, 2):
        bench.settle(record, Retried(0, BOOM), now=at(turn * 10 + 5))
        bench.register(f"w{turn + 1}")
        (record,) = bench.claim(now=at(turn * 10 + 10))
    bench.settle(record, Failed(BOOM), now=at(35))
    return bench.look(record.id)


@chapter.case
def failed_tries_are_told_oldest_first(bench: Bench) -> None:
    record = _failed_thrice(bench)
    told = [(one.attempt, one.started_at, one.finished_at) for one in bench.adapter.attempts(record.id)]
    same(told, [(1, CLAIMED, at(15)), (2, at(20), at(25)), (3, at(30), at(35))], "the tries")


@chapter.case
def each_job_has_its_own_history(bench: Bench) -> None:
    claimed = bench.running(3)
    for record in claimed[:2]:
        bench.settle(record, Failed(BOOM))
    told = [[(one.job_id, one.worker) for one in bench.adapter.attempts(record.id)] for record in claimed]
    same(told, [[(claimed[0].id, "w1")], [(claimed[1].id, "w1")], []], "the tries")


@chapter.case
def a_retry_by_hand_keeps_the_history(bench: Bench) -> None:
    record = _failed_thrice(bench)
    bench.adapter.retry([record], now=NOW)
    same(len(bench.adapter.attempts(record.id)), 3, "how many tries are told")


@chapter.table({"kept": (True, 1), "not kept": (False, 0)})
def success_takes_the_history_only_with_the_row_when(bench: Bench, keep: bool, lines: int) -> None:
    (record,) = bench.running()
    bench.settle(record, Retried(0, BOOM), now=ENDED)
    (again,) = bench.claim(now=ENDED)
    bench.settle(again, Succeeded(keep=keep))
    same(len(bench.adapter.attempts(record.id)), lines, "how many tries are told")


@chapter.table({trace.value: (trace,) for trace in (Trace.STARTED, Trace.ENDED_BADLY, Trace.UNKNOWN)})
def success_takes_the_history_of_a_rescue_that_found_it(bench: Bench, trace: Trace) -> None:
    (record,) = bench.running()
    bench.adapter.rescue("w1", notes={(record.id, record.lock_token): trace}, now=ENDED)
    same(len(bench.adapter.attempts(record.id)), 1, "how many tries are told before")
    bench.register("w1")
    (again,) = bench.claim(alone=bench.look(record.id).alone, now=ENDED)
    bench.settle(again, Succeeded())
    same(list(bench.adapter.attempts(record.id)), [], "the tries told after")
