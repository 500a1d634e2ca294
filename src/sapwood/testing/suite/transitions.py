"""Verb × standing: what each verb makes of a job wherever it stands, and that it leaves all others as they were.

The expectations are written out; they are not computed by :mod:`sapwood.lifecycle`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from sapwood.adapters.base import JobFilter, Settlement
from sapwood.lifecycle import (
    Cancelled,
    Edit,
    Failed,
    Outcome,
    Succeeded,
    Trace,
)
from sapwood.record import JobRecord, JobState
from sapwood.testing.suite.bench import BOOM, NOW, Bench, at, draft, same
from sapwood.testing.suite.case import Chapter
from sapwood.testing.suite.outcomes import GONE, OUTCOMES, SETTLED, SETTLED_WORN, Left
from sapwood.testing.suite.standings import (
    DAMAGED,
    KILLED,
    LOCKED,
    STANDINGS,
    STARTED_ONCE,
    UNLOCKED,
    Standing,
    line,
    stored,
)


class Verb(Struct, frozen=True):
    """A verb, and where it applies."""

    act: Callable[[Bench, JobRecord], object]
    """Returns the ids, the records or the count that the verb returned."""

    applies: Mapping[str, Left]
    """What it leaves, by standing."""

    spares: Sequence[str]
    """The standings in which it leaves a job exactly as it was."""

    requires: str | None = None


_READY = UNLOCKED | {"state": JobState.READY}

NOTES: Mapping[str, Trace | None] = {trace.value: trace for trace in Trace} | {"no notes at all": None}

_DEATH = line(KILLED, finished_at=NOW)
_OVERRAN = "timeout: it could not be stopped in its time, and was ended with its worker"
_DAMAGE = line(DAMAGED, finished_at=NOW)
_BADLY = line("failed, its outcome was lost with its worker", finished_at=NOW)
_LATE = line(_OVERRAN, finished_at=NOW)


def _after_death(note: str, standing: str) -> Left:
    """Return what a rescue leaves, as the table of the contract has it."""
    before = STANDINGS[standing].fields
    attempts, deaths = before["attempts"], before.get("deaths", 0)
    died, spent, entry = {
        "not started": (0, 0, None),
        "started": (1, 1, _DEATH),
        "ended well": (0, 0, None),
        "ended badly": (0, 1, _BADLY),
        "timed out": (0, 1, _LATE),
        "suspected": (1, 0, _DAMAGE),
        "unknown": (1, 0, _DEATH),
        "no notes at all": (1, 0, _DEATH),
    }[note]
    changes = _READY | {"attempts": attempts - 1 + spent, "deaths": deaths + died}
    if died:
        changes |= {"alone": True, "last_error": DAMAGED if note == "suspected" else KILLED}
    if note == "timed out":
        later = NOW + timedelta(seconds=attempts**4)
        changes |= {"state": JobState.SCHEDULED, "run_at": later, "last_error": _OVERRAN}
    if deaths + died == 3 or (spent and standing == "on its last try"):  # noqa: PLR2004 - the contract's own number
        changes |= {"state": JobState.FAILED, "failed_at": NOW, "finished_at": NOW}
        changes.pop("run_at", None)
        changes.setdefault("last_error", "its last try failed, its outcome was lost with its worker")
    if entry is not None:
        entry = replace(entry, attempt=attempts)
    return Left(changes, entry)


def _settle(outcome: Outcome) -> Callable[[Bench, JobRecord], object]:
    return lambda bench, record: bench.adapter.settle("w1", [Settlement(record, outcome)], now=NOW)


def _rescue(trace: Trace | None) -> Callable[[Bench, JobRecord], object]:
    def act(bench: Bench, record: JobRecord) -> object:
        notes = None if trace is None else {(record.id, record.lock_token): trace}
        return bench.adapter.rescue("w1", notes=notes, now=NOW)

    return act


def _sweep(bench: Bench, record: JobRecord) -> object:
    del record
    bench.helper("forget_worker")(bench.adapter, "w1")
    return bench.adapter.sweep(now=NOW)


def _edit(edit: Edit) -> Callable[[Bench, JobRecord], object]:
    return lambda bench, record: bench.adapter.edit([record], edit, now=NOW)


def _claim(*, alone: bool) -> Callable[[Bench, JobRecord], object]:
    return lambda bench, _: bench.adapter.claim("w1", queues=["here"], limit=9, alone=alone, now=NOW).claimed


def _clear(*, running: bool) -> Callable[[Bench, JobRecord], object]:
    return lambda bench, _: bench.adapter.clear(JobFilter(queues=["here"]), running=running)


_RUNNING = ["running", "on its last try", "worn", "deadly"]
_IDLE = ["scheduled", "ready", "succeeded", "failed", "cancelled"]
_EVERYWHERE = ["scheduled", "due", "ready", "set apart", "running", "succeeded", "failed", "cancelled"]


def _but(*standings: str) -> list[str]:
    return [standing for standing in _EVERYWHERE if standing not in standings]


def _everywhere(left: Left, *standings: str) -> Mapping[str, Left]:
    return dict.fromkeys(standings, left)


def _given_back(standing: str) -> Left:
    return Left(_READY | {"attempts": STANDINGS[standing].fields["attempts"] - 1})


_BEGUN_ONCE = UNLOCKED | {
    "state": JobState.FAILED,
    "failed_at": NOW,
    "finished_at": NOW,
    "last_error": STARTED_ONCE,
}
"""What is left of a marked job when nobody can tell what came of its run."""

_BEGUN_LINE = line(STARTED_ONCE, finished_at=NOW)
_FAILED_FOR_GOOD = {"retried": "failed", "retried at once": "failed"}


def _settled_marked(name: str) -> Left:
    """Return what an outcome leaves of a marked job: nothing that could run once more."""
    if name == "released":
        return Left(_BEGUN_ONCE | {"started_at": None}, _BEGUN_LINE)
    left = SETTLED[_FAILED_FOR_GOOD.get(name, name)]
    return left if left.changes is GONE else Left({**left.changes, "started_at": None}, left.line)


def _marked_after_death(note: str) -> Left:
    return Left(
        _BEGUN_ONCE | {"deaths": int(note in {"started", "suspected", "unknown", "no notes at all"})}, _BEGUN_LINE
    )


def _settle_verbs() -> Mapping[str, Verb]:
    verbs = {}
    for name, outcome in OUTCOMES.items():
        applies = {"running": SETTLED[name], "marked": _settled_marked(name)}
        if name in SETTLED_WORN:
            left = SETTLED[name]
            applies["worn"] = Left({**(left.changes or {}), **SETTLED_WORN[name]}, left.line)
        verbs[f"settle as {name}"] = Verb(_settle(outcome), applies, _IDLE)
    return verbs


def _rescue_verbs() -> Mapping[str, Verb]:
    return {
        f"rescue with {note!r}": Verb(
            _rescue(trace),
            {standing: _after_death(note, standing) for standing in _RUNNING} | {"marked": _marked_after_death(note)},
            _IDLE if note in {"started", "no notes at all"} else (),
        )
        for note, trace in NOTES.items()
    }


_NOW_AGAIN = {"state": JobState.READY, "run_at": NOW}
_UNDONE = _NOW_AGAIN | {"finished_at": None, "failed_at": None}
_CANCELLED = Left({"state": JobState.CANCELLED, "finished_at": NOW})
_WAITING = ("scheduled", "due", "ready", "set apart")
_NOT_RUNNING = tuple(_but("running"))

VERBS: Mapping[str, Verb] = {
    **_settle_verbs(),
    **_rescue_verbs(),
    "mark": Verb(
        lambda bench, record: bench.adapter.mark("w1", record, now=NOW),
        {"running": Left({"started_at": NOW}), "deadly": Left({"started_at": NOW})},
        [*_IDLE, "marked", "begun once"],
    ),
    "release": Verb(
        lambda bench, _: bench.adapter.release("w1", now=NOW),
        {standing: _given_back(standing) for standing in _RUNNING}
        | {"marked": Left(_BEGUN_ONCE | {"started_at": None}, _BEGUN_LINE)},
        _IDLE,
    ),
    "unregister": Verb(
        lambda bench, _: bench.adapter.unregister("w1", now=NOW),
        {standing: _given_back(standing) for standing in _RUNNING}
        | {"marked": Left(_BEGUN_ONCE | {"started_at": None}, _BEGUN_LINE)},
        _IDLE,
    ),
    "sweep": Verb(
        _sweep,
        {standing: _after_death("no notes at all", standing) for standing in _RUNNING}
        | {"marked": _marked_after_death("no notes at all")},
        _IDLE,
        requires="forget_worker",
    ),
    "sweep with its worker known": Verb(lambda bench, _: bench.adapter.sweep(now=NOW), {}, _RUNNING),
    "retry": Verb(
        lambda bench, record: bench.adapter.retry([record], now=NOW),
        {
            "scheduled": Left(_NOW_AGAIN),
            "due": Left(_NOW_AGAIN),
            "failed": Left(_UNDONE),
            "exhausted": Left(_UNDONE | {"max_attempts": 3}),
            "condemned": Left(_UNDONE | {"deaths": 0, "alone": False}),
            "begun once": Left(_UNDONE | {"deaths": 0, "started_at": None}),
            "cancelled": Left(_UNDONE),
        },
        ["ready", "set apart", "running", "succeeded"],
    ),
    "cancel": Verb(
        lambda bench, record: bench.adapter.cancel([record], now=NOW),
        _everywhere(_CANCELLED, *_WAITING),
        _but(*_WAITING),
    ),
    "edit the queue": Verb(
        _edit(Edit(queue="elsewhere")), _everywhere(Left({"queue": "elsewhere"}), *_WAITING), _but(*_WAITING)
    ),
    "edit the priority": Verb(_edit(Edit(priority=7)), _everywhere(Left({"priority": 7}), *_WAITING), _but(*_WAITING)),
    "edit the arguments": Verb(
        _edit(Edit(args='{"ü": 2}')), _everywhere(Left({"args": '{"ü": 2}'}), *_WAITING), _but(*_WAITING)
    ),
    "edit run_at to the future": Verb(
        _edit(Edit(run_at=at(500))),
        _everywhere(Left({"state": JobState.SCHEDULED, "run_at": at(500)}), *_WAITING),
        _but(*_WAITING),
    ),
    "edit run_at to the past": Verb(
        _edit(Edit(run_at=at(99))),
        _everywhere(Left({"state": JobState.READY, "run_at": at(99)}), *_WAITING),
        _but(*_WAITING),
    ),
    "edit everything": Verb(
        _edit(Edit(queue="elsewhere", priority=1, run_at=NOW, args="{}")),
        _everywhere(
            Left({"queue": "elsewhere", "priority": 1, "state": JobState.READY, "run_at": NOW, "args": "{}"}),
            "scheduled",
            "ready",
        ),
        (),
    ),
    "edit nothing": Verb(_edit(Edit()), _everywhere(Left({}), "due", "ready"), ["running", "failed"]),
    "delete": Verb(
        lambda bench, record: bench.adapter.delete([record]),
        _everywhere(Left(GONE), *_NOT_RUNNING),
        ["running"],
    ),
    "clear": Verb(_clear(running=False), _everywhere(Left(GONE), *_NOT_RUNNING), ["running"]),
    "clear with running": Verb(_clear(running=True), _everywhere(Left(GONE), *_EVERYWHERE), ()),
    "promote": Verb(
        lambda bench, _: bench.adapter.promote(now=NOW), {"due": Left({"state": JobState.READY})}, _but("due")
    ),
    "claim": Verb(_claim(alone=False), {"ready": Left(LOCKED | {"locked_at": NOW})}, _but("ready")),
    "claim alone": Verb(
        _claim(alone=True),
        {"set apart": Left(LOCKED | {"locked_at": NOW, "lock_token": 2, "attempts": 2})},
        _but("set apart"),
    ),
}

chapter = Chapter("transitions")


def _bystanders(bench: Bench) -> list[JobRecord]:
    """Store jobs in another queue, one in each state, that no verb here is meant to touch."""
    bench.register("bystander")
    there = [draft(queue="bystanders", wait=wait) for wait in (0, 0, 0, 0, 0, 7200)]
    stored = bench.enqueue(*there)
    claimed = bench.claim("bystander", limit=4, queues=["bystanders"])
    outcomes: tuple[Outcome, ...] = (Succeeded(keep=True), Failed(BOOM), Cancelled("done with"))
    settlements = [Settlement(record, outcome) for record, outcome in zip(claimed, outcomes, strict=False)]
    bench.adapter.settle("bystander", settlements, now=at(15))
    return [bench.look(record.id) for record in stored]


def _check(bench: Bench, verb: Verb, standing: Standing, left: Left | None) -> None:
    """Bring a job to its standing, act, and compare everything with what is expected."""
    bystanders = _bystanders(bench)
    arrived = standing.arrive(bench)
    before = stored(arrived.id, standing.fields)
    bench.register("w1")
    same(arrived, before, "before")

    answer = verb.act(bench, arrived)

    after: JobRecord | None = before
    history = list(standing.history)
    if left is not None:
        after = None if left.changes is GONE else replace(before, **left.changes)
        history = [] if after is None else [*history, *([left.line] if left.line else [])]
    same(bench.adapter.get(before.id), after, "after")
    attempts = [replace(attempt, job_id=0) for attempt in bench.adapter.attempts(before.id)]
    same(attempts, history, "its failed tries")
    same([bench.look(one.id) for one in bystanders], bystanders, "the bystanders")
    _check_answer(answer, before.id, left is not None, after)


def _check_answer(answer: object, id: int, applied: bool, after: JobRecord | None) -> None:  # noqa: FBT001
    match answer:
        case frozenset():
            same(answer, frozenset({id} if applied else ()), "the ids returned")
        case int():
            same(answer, int(applied), "the count returned")
        case _:
            same(list(answer), [after] if applied else [], "the records returned")  # type: ignore[call-overload]


def _add(name: str, verb: Verb) -> None:
    for standing, left in verb.applies.items():
        _add_one(f"{name} applies to a job that is {standing}", verb, standing, left)
    for standing in verb.spares:
        _add_one(f"{name} spares a job that is {standing}", verb, standing, None)


def _add_one(sentence: str, verb: Verb, standing: str, left: Left | None) -> None:
    chapter.add(sentence, lambda bench: _check(bench, verb, STANDINGS[standing], left), requires=verb.requires)


for _name, _verb in VERBS.items():
    _add(_name, _verb)
