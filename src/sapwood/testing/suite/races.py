# ruff: noqa: D103, PLR2004 - the name of a case is its sentence, and its numbers are the example
"""What threads do at once: whatever their order, it is as if one had come after the other."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

from sapwood.adapters.base import Settlement
from sapwood.lifecycle import Edit, Failed, Retried, Succeeded
from sapwood.record import JobRecord, JobState
from sapwood.testing.suite.bench import BOOM, CLAIMED, ENDED, NOW, Bench, at, draft, ids, same
from sapwood.testing.suite.case import Chapter

chapter = Chapter("races")

ROUNDS = 10

Act = Callable[[Bench, JobRecord], object]


def _at_once(*acts: Callable[[], Any]) -> Sequence[Any]:
    """Run all acts in threads of their own, started together, and return what they returned."""
    start = Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        start.wait(timeout=30)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


# --- contests that exactly one wins -----------------------------------------------------------------------------------


def _ready(bench: Bench) -> JobRecord:
    return bench.ready()[0]


def _due(bench: Bench) -> JobRecord:
    return bench.enqueue(draft(wait=50))[0]


def _running(bench: Bench) -> JobRecord:
    return bench.running()[0]


def _failed(bench: Bench) -> JobRecord:
    (record,) = bench.running()
    bench.settle(record, Failed(BOOM), now=ENDED)
    return bench.look(record.id)


def _claim(worker: str) -> Act:
    return lambda bench, _: bench.claim(worker, now=NOW)


def _settle(bench: Bench, record: JobRecord) -> object:
    return bench.adapter.settle("w1", [Settlement(record, Succeeded())], now=NOW)


def _retry_later(bench: Bench, record: JobRecord) -> object:
    return bench.adapter.settle("w1", [Settlement(record, Retried(60, BOOM))], now=NOW)


def _rescue(bench: Bench, record: JobRecord) -> object:
    del record
    return bench.adapter.rescue("w1", now=NOW)


def _rescue_by_beat(bench: Bench, record: JobRecord) -> object:
    del record
    return bench.adapter.rescue("w1", beat=0, now=NOW)


def _beat(bench: Bench, record: JobRecord) -> object:
    del record
    return bench.adapter.beat(["w1"], now=NOW)


def _release(bench: Bench, record: JobRecord) -> object:
    del record
    return bench.adapter.release("w1", now=NOW)


def _unregister(bench: Bench, record: JobRecord) -> object:
    del record
    return bench.adapter.unregister("w1", now=NOW)


def _retry(bench: Bench, record: JobRecord) -> object:
    return bench.adapter.retry([record], now=NOW)


def _cancel(bench: Bench, record: JobRecord) -> object:
    return bench.adapter.cancel([record], now=NOW)


def _postpone(bench: Bench, record: JobRecord) -> object:
    return bench.adapter.edit([record], Edit(run_at=at(900)), now=NOW)


def _delete(bench: Bench, record: JobRecord) -> object:
    return bench.adapter.delete([record])


def _clear(bench: Bench, record: JobRecord) -> object:
    del record
    return bench.adapter.clear(running=True)


def _promote(bench: Bench, record: JobRecord) -> object:
    del record
    return bench.adapter.promote(now=NOW)


CONTESTS: Mapping[str, tuple[Callable[[Bench], JobRecord], Act, Act]] = {
    "claim and claim": (_ready, _claim("w1"), _claim("w2")),
    "claim and cancel": (_ready, _claim("w1"), _cancel),
    "claim and delete": (_ready, _claim("w1"), _delete),
    "claim and an edit of run_at": (_ready, _claim("w1"), _postpone),
    "success and rescue": (_running, _settle, _rescue),
    "retry and rescue": (_running, _retry_later, _rescue),
    "success and release": (_running, _settle, _release),
    "success and a second success": (_running, _settle, _settle),
    "success and failure": (_running, _settle, _retry_later),
    "success and clear": (_running, _settle, _clear),
    "release and release": (_running, _release, _release),
    "rescue and rescue": (_running, _rescue, _rescue),
    "rescue and the end of the worker": (_running, _rescue, _unregister),
    "rescue and beat": (_running, _rescue_by_beat, _beat),
    "retry by hand, twice": (_failed, _retry, _retry),
    "retry by hand and delete": (_failed, _retry, _delete),
    "cancel and cancel": (_due, _cancel, _cancel),
    "cancel and promotion": (_due, _cancel, _promote),
    "promotion and promotion": (_due, _promote, _promote),
}


@chapter.table(CONTESTS)
def exactly_one_wins(bench: Bench, prepare: Callable[[Bench], JobRecord], one: Act, other: Act) -> None:
    for _ in range(ROUNDS):
        bench.adapter.clear(running=True)
        bench.register("w1", "w2")
        record = prepare(bench)
        answers = _at_once(partial(one, bench, record), partial(other, bench, record))
        same(sum(bool(answer) for answer in answers), 1, f"how many won, by the answers {answers}")


# --- many at once -----------------------------------------------------------------------------------------------------


def _rescued(bench: Bench, worker: str) -> None:
    """Look until the worker is rescued: not while a claim of its own is under way."""
    while bench.adapter.rescue(worker, notes={}, now=NOW) is None:
        pass


@chapter.case
def no_claim_outlives_the_rescue_of_its_worker(bench: Bench) -> None:
    for _ in range(ROUNDS):
        bench.adapter.clear(running=True)
        bench.register("w1")
        (record,) = bench.ready()
        answer, _ = _at_once(
            lambda: bench.adapter.claim("w1", limit=1, now=NOW),
            lambda: _rescued(bench, "w1"),
        )
        left = bench.look(record.id)
        same((left.state, left.attempts), (JobState.READY, 0), "state and attempts")
        same(left.lock_token, len(answer.claimed), "the token")
        same(bool(answer.claimed), answer.alive, "whether the worker lives")


@chapter.case
def eight_workers_claim_every_job_once(bench: Bench) -> None:
    stored = bench.enqueue(*(draft(queue=f"q{n % 3}", priority=1 + n % 4) for n in range(400)))
    names = [f"w{n}" for n in range(8)]
    bench.register(*names)

    def work(name: str) -> list[int]:
        taken: list[int] = []
        settlements: list[Settlement] = []
        idle = 0
        # One that loses every race may come back with nothing while jobs are left.
        while idle < 3:
            answer = bench.adapter.exchange(name, settlements, limit=7, now=NOW)
            same(answer.settled, {one.record.id for one in settlements}, "the ids written")
            settlements = [Settlement(record, Succeeded(keep=True)) for record in answer.claimed]
            taken += ids(answer.claimed)
            idle = 0 if answer.claimed else idle + 1
        return taken

    taken = _at_once(*(partial(work, name) for name in names))
    same(sorted(job_id for one in taken for job_id in one), ids(stored), "the jobs claimed by all")
    left = {(one.state, one.attempts, one.lock_token) for one in bench.everything()}
    same(left, {(JobState.SUCCEEDED, 1, 1)}, "state, attempts and token of all")


@chapter.case
def four_promote_every_due_job_once(bench: Bench) -> None:
    bench.enqueue(*(draft(priority=1 + n % 5, wait=50) for n in range(200)))

    def work() -> int:
        promoted = idle = 0
        while idle < 3:
            some = bench.adapter.promote(limit=9, now=NOW)
            promoted += some
            idle = 0 if some else idle + 1
        return promoted

    same(sum(_at_once(*[work] * 4)), 200, "how many were promoted")


@chapter.case
def eight_store_jobs_and_none_shares_an_id(bench: Bench) -> None:
    def work() -> list[int]:
        return [job_id for _ in range(10) for job_id in bench.adapter.enqueue([draft(), draft()], now=NOW)]

    given = _at_once(*[work] * 8)
    same([sorted(one) == one for one in given], [True] * 8, "whether the ids of each rise")
    same(ids(bench.everything()), sorted(job_id for one in given for job_id in one), "the jobs")


@chapter.case
def four_beat_and_no_beat_is_lost(bench: Bench) -> None:
    bench.register("w1")
    _at_once(*[lambda: [bench.adapter.beat(["w1"], now=CLAIMED) for _ in range(10)]] * 4)
    same([one.beat for one in bench.adapter.workers()], [40], "the beat")


def _sweeps_once(bench: Bench) -> None:
    claimed = bench.running(20)
    bench.helper("forget_worker")(bench.adapter, "w1")
    swept = _at_once(*[lambda: bench.adapter.sweep(now=NOW)] * 4)
    same(sorted(one.id for some in swept for one in some), ids(claimed), "the jobs taken back by all")
    same({one.deaths for one in bench.everything()}, {1}, "the deaths of each")


chapter.add("four sweep and each job is taken back once", _sweeps_once, requires="forget_worker")
