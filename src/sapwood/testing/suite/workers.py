# ruff: noqa: D103, FBT001 - the name of a case is its sentence, and its numbers are the example
"""How workers come, live, lose an answer, and go; in good order or not."""

from msgspec.structs import replace

from sapwood.lifecycle import Succeeded, Trace
from sapwood.record import JobState
from sapwood.testing.suite.bench import CLAIMED, ENDED, NOW, STORED, Bench, at, holds, ids, same, worker
from sapwood.testing.suite.case import Chapter
from sapwood.testing.suite.standings import KILLED

chapter = Chapter("workers")

# --- coming and going -------------------------------------------------------------------------------------------------


@chapter.table(
    {
        "for all queues": ({},),
        "for some queues": ({"queues": ["email", "größe", "a,b"]},),
        "for one queue": ({"queues": ["email"], "concurrency": 1},),
        "of a supervisor": ({"name": "größe.1", "supervisor": "f" * 32},),
        "elsewhere": ({"host": "büro-7.example", "pid": 4_194_304, "release": "2.0.0rc1"},),
    }
)
def a_registered_worker_is_known(bench: Bench, options: dict[str, object]) -> None:
    told = worker("0123456789abcdef0123456789abcdef", **options)
    bench.adapter.register(told, now=STORED)
    (known,) = bench.adapter.workers()
    queues = None if known.queues is None else list(known.queues)
    same(replace(known, queues=queues), replace(told, beat_at=STORED, started_at=STORED), "the worker")


@chapter.case
def a_beat_raises_the_counter_of_one_worker(bench: Bench) -> None:
    bench.register("w1", "w2")
    beats = [bench.adapter.beat(["w1"], now=at(seconds)) for seconds in (5, 10)]
    same(beats, [{"w1"}] * 2, "the answers")
    known = {one.id: (one.beat, one.beat_at, one.started_at) for one in bench.adapter.workers()}
    same(known, {"w1": (2, at(10), STORED), "w2": (0, STORED, STORED)}, "beats")


@chapter.case
def several_workers_beat_at_once_and_the_missing_are_told(bench: Bench) -> None:
    bench.register("w1", "w2", "w3")
    bench.adapter.rescue("w2", now=ENDED)
    same(bench.adapter.beat(["w1", "w2", "w9"], now=NOW), {"w1"}, "those that are known")
    same({one.id: one.beat for one in bench.adapter.workers()}, {"w1": 1, "w3": 0}, "beats")


@chapter.case
def a_beat_of_no_worker_changes_nothing(bench: Bench) -> None:
    bench.register("w1")
    same(bench.adapter.beat([], now=NOW), frozenset(), "the answer")
    same([one.beat for one in bench.adapter.workers()], [0], "the beat")


@chapter.case
def a_beat_of_nobody_is_refused(bench: Bench) -> None:
    bench.register("w1")
    same(bench.adapter.beat(["w9"], now=NOW), frozenset(), "the answer")
    same([one.id for one in bench.adapter.workers()], ["w1"], "the workers")


@chapter.case
def a_beat_of_a_rescued_worker_is_refused(bench: Bench) -> None:
    bench.register("w1")
    bench.adapter.rescue("w1", now=ENDED)
    same(bench.adapter.beat(["w1"], now=NOW), frozenset(), "the answer")
    same(list(bench.adapter.workers()), [], "the workers")


@chapter.case
def a_worker_that_ends_leaves_others_alone(bench: Bench) -> None:
    mine, theirs = bench.running(2, "w1"), bench.running(2, "w2")
    released = bench.adapter.unregister("w1", now=NOW)
    same(sorted(ids(released)), ids(mine), "the jobs released")
    same([bench.look(one.id) for one in theirs], theirs, "the jobs of the other")
    same([one.id for one in bench.adapter.workers()], ["w2"], "the workers")


@chapter.case
def an_unknown_worker_may_end(bench: Bench) -> None:
    theirs = bench.running(1, "w2")
    same(list(bench.adapter.unregister("w1", now=NOW)), [], "the jobs released")
    same(bench.everything(), theirs, "the jobs")


# --- lost answers -----------------------------------------------------------------------------------------------------


@chapter.table({f"{held} of 3": (held,) for held in range(4)})
def what_is_held_is_not_released(bench: Bench, held: int) -> None:
    claimed = bench.running(3)
    claims = [(one.id, one.lock_token) for one in claimed[:held]]
    released = bench.adapter.release("w1", held=claims, now=NOW)
    same(sorted(ids(released)), ids(claimed[held:]), "the jobs released")
    same([bench.look(one.id) for one in claimed[:held]], claimed[:held], "the jobs held")
    left = [(one.state, one.attempts, one.lock_token) for one in map(bench.look, ids(claimed[held:]))]
    same(left, [(JobState.READY, 0, 1)] * (3 - held), "the jobs given back")


@chapter.case
def a_claim_held_with_an_old_token_is_released(bench: Bench) -> None:
    (old,) = bench.running()
    bench.adapter.release("w1", now=ENDED)
    (current,) = bench.claim(now=ENDED)
    released = bench.adapter.release("w1", held=[(old.id, old.lock_token)], now=NOW)
    same(ids(released), [current.id], "the jobs released")


@chapter.case
def tokens_of_two_jobs_are_not_confused(bench: Bench) -> None:
    first, second = bench.running(2)
    bench.adapter.release("w1", held=[(first.id, 1)], now=ENDED)
    (again,) = bench.claim(now=ENDED)
    same((again.id, again.lock_token), (second.id, 2), "the job claimed again")
    released = bench.adapter.release("w1", held=[(first.id, 2), (second.id, 1)], now=NOW)
    same(sorted(ids(released)), [first.id, second.id], "the jobs released")


@chapter.case
def a_release_leaves_the_jobs_of_others(bench: Bench) -> None:
    bench.running(1, "w1")
    theirs = bench.running(2, "w2")
    bench.adapter.release("w1", now=NOW)
    same([bench.look(one.id) for one in theirs], theirs, "the jobs of the other")


@chapter.case
def a_claim_whose_answer_was_lost_is_resolved(bench: Bench) -> None:
    stored = bench.ready(4)
    bench.register("w1")
    held = bench.claim(limit=2)
    lost = bench.claim(limit=2)
    bench.adapter.release("w1", held=[(one.id, one.lock_token) for one in held], now=ENDED)
    same([bench.settle(one, Succeeded()) for one in lost], [frozenset()] * 2, "the late outcomes")
    again = bench.claim(limit=9, now=NOW)
    same(ids(again), ids(stored[2:]), "the jobs claimed again")
    same([(one.attempts, one.lock_token) for one in again], [(1, 2)] * 2, "attempts and tokens")


@chapter.case
def ten_thousand_claims_may_be_held(bench: Bench) -> None:
    claimed = bench.running(3)
    held = [(one.id, one.lock_token) for one in claimed[:2]] + [(n, 1) for n in range(1000, 11_000)]
    same(ids(bench.adapter.release("w1", held=held, now=NOW)), [claimed[2].id], "the jobs released")


# --- rescue -----------------------------------------------------------------------------------------------------------


@chapter.case
def a_rescue_tells_each_claim_by_its_own_note(bench: Bench) -> None:
    claimed = bench.running(7, max_attempts=1)
    traces = [
        *(Trace.NOT_STARTED, Trace.STARTED, Trace.ENDED_WELL),
        *(Trace.ENDED_BADLY, Trace.UNKNOWN, Trace.SUSPECTED),
    ]
    notes = {(one.id, one.lock_token): trace for one, trace in zip(claimed, traces, strict=False)}
    rescued = bench.adapter.rescue("w1", notes=notes, now=NOW)
    after = [bench.look(one.id) for one in claimed]
    same(sorted(rescued or (), key=lambda one: one.id), after, "the records returned")
    ready, failed = JobState.READY, JobState.FAILED
    same([one.state for one in after], [ready, failed, ready, failed, ready, ready, ready], "the states")
    same([one.attempts for one in after], [0, 1, 0, 1, 0, 0, 0], "the attempts")
    same([one.deaths for one in after], [0, 1, 0, 0, 1, 1, 0], "the deaths")
    same([len(bench.adapter.attempts(one.id)) for one in after], [0, 1, 0, 1, 1, 1, 0], "lines of history")


@chapter.case
def a_note_of_another_claim_says_nothing(bench: Bench) -> None:
    (old,) = bench.running()
    bench.adapter.release("w1", now=ENDED)
    bench.claim(now=ENDED)
    notes = {(old.id, old.lock_token): Trace.STARTED, (old.id + 1, 2): Trace.STARTED}
    bench.adapter.rescue("w1", notes=notes, now=NOW)
    after = bench.look(old.id)
    same((after.state, after.attempts, after.deaths), (JobState.READY, 0, 0), "state, attempts, deaths")


@chapter.table({"the one in the row": (1, True), "an older one": (0, False), "a later one": (2, False)})
def a_rescue_compares_the_beat(bench: Bench, beat: int, goes: bool) -> None:
    claimed = bench.running(2)
    bench.adapter.beat(["w1"], now=CLAIMED)
    rescued = bench.adapter.rescue("w1", beat=beat, now=NOW)
    same(rescued is not None, goes, "whether it was rescued")
    same(len(bench.adapter.workers()), int(not goes), "how many workers are known")
    if not goes:
        same(bench.everything(), claimed, "the jobs")
        same(bench.adapter.claim("w1", limit=0, now=NOW).alive, True, "whether it lives")


@chapter.case
def the_first_beat_is_compared_too(bench: Bench) -> None:
    bench.register("w1")
    claimed = bench.running()
    same(ids(bench.adapter.rescue("w1", beat=0, now=NOW) or ()), ids(claimed), "the jobs taken back")


@chapter.case
def the_rescue_of_an_idle_worker_takes_nothing_back(bench: Bench) -> None:
    bench.register("w1")
    rescued = bench.adapter.rescue("w1", now=NOW)
    holds(rescued is not None, "a known worker was not rescued")
    same((list(rescued or ()), list(bench.adapter.workers())), ([], []), "the jobs taken back, and the workers")


@chapter.case
def nobody_is_not_rescued(bench: Bench) -> None:
    theirs = bench.running(1, "w2")
    same(bench.adapter.rescue("w1", now=NOW), None, "the answer")
    same(bench.everything(), theirs, "the jobs")


@chapter.case
def a_worker_is_rescued_once(bench: Bench) -> None:
    bench.running(2)
    same(len(bench.adapter.rescue("w1", now=ENDED) or ()), 2, "how many were taken back")
    before = bench.everything()
    same(bench.adapter.rescue("w1", now=NOW), None, "the second answer")
    same(bench.everything(), before, "the jobs")


@chapter.case
def a_rescue_leaves_the_jobs_of_others(bench: Bench) -> None:
    bench.running(1, "w1")
    theirs = bench.running(2, "w2")
    bench.adapter.rescue("w1", now=NOW)
    same([bench.look(one.id) for one in theirs], theirs, "the jobs of the other")
    same([one.id for one in bench.adapter.workers()], ["w2"], "the workers")


@chapter.case
def the_third_death_of_workers_fails_a_job(bench: Bench) -> None:
    (record,) = bench.running()
    states = []
    for _ in range(3):
        bench.adapter.rescue("w1", notes={(record.id, record.lock_token): Trace.STARTED}, now=NOW)
        states.append(bench.look(record.id).state)
        bench.register("w1")
        record = next(iter(bench.claim(alone=True)), record)
    same(states, [JobState.READY, JobState.READY, JobState.FAILED], "the states")
    same([one.error for one in bench.adapter.attempts(record.id)], [KILLED] * 3, "its failed tries")


@chapter.case
def a_thousand_jobs_are_rescued_at_once(bench: Bench) -> None:
    claimed = bench.running(1000)
    notes = {(one.id, 1): Trace.STARTED for one in claimed[:10]}
    rescued = bench.adapter.rescue("w1", notes=notes, now=NOW)
    same(sum(one.deaths for one in rescued or ()), 10, "deaths")
    same(dict(bench.adapter.counts()), {("here", JobState.READY): 1000}, "the states")


# --- sweep ------------------------------------------------------------------------------------------------------------


@chapter.case
def a_sweep_of_nothing_finds_nothing(bench: Bench) -> None:
    same(list(bench.adapter.sweep(now=NOW)), [], "the jobs taken back")


def _sweeps_orphans_only(bench: Bench) -> None:
    mine, theirs = bench.running(2, "w1"), bench.running(2, "w2")
    bench.helper("forget_worker")(bench.adapter, "w1")
    same(sorted(ids(bench.adapter.sweep(now=NOW))), ids(mine), "the jobs taken back")
    same([bench.look(one.id) for one in theirs], theirs, "the jobs of the other")
    same(list(bench.adapter.sweep(now=NOW)), [], "the jobs of a second sweep")


def _claims_nothing_once_forgotten(bench: Bench) -> None:
    bench.running(1, "w1")
    bench.ready()
    bench.helper("forget_worker")(bench.adapter, "w1")
    answer = bench.adapter.claim("w1", limit=9, now=NOW)
    same((list(answer.claimed), answer.alive), ([], False), "the answer")


def _ends_though_forgotten(bench: Bench) -> None:
    (record,) = bench.running(1, "w1")
    bench.helper("forget_worker")(bench.adapter, "w1")
    same(list(bench.adapter.unregister("w1", now=NOW)), [], "the jobs released")
    same(bench.look(record.id), record, "the job")


def _settles_though_forgotten(bench: Bench) -> None:
    (record,) = bench.running(1, "w1")
    bench.helper("forget_worker")(bench.adapter, "w1")
    same(bench.settle(record, Succeeded()), {record.id}, "the ids written")
    holds(bench.adapter.get(record.id) is None, "the row of a job that succeeded is still there")


chapter.add("a sweep takes the jobs of the forgotten only", _sweeps_orphans_only, requires="forget_worker")
chapter.add("a forgotten worker claims nothing", _claims_nothing_once_forgotten, requires="forget_worker")
chapter.add(
    "a forgotten worker that ends leaves its jobs to the sweep", _ends_though_forgotten, requires="forget_worker"
)
chapter.add("a forgotten worker settles what still runs under it", _settles_though_forgotten, requires="forget_worker")
