"""``sapwood list``, ``show`` and ``clear``: what is stored."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sapwood import registry
from sapwood.adapters.base import BaseAdapter, JobFilter
from sapwood.cli import values
from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.output import (
    clean,
    document,
    instant,
    number,
    say,
    short_name,
    shortened,
    span,
    state_name,
    table,
    tell,
    until,
)
from sapwood.cli.problems import Misused, NotFound
from sapwood.cli.values import flat, identity, listed
from sapwood.cli.why import living_workers, reason, title
from sapwood.record import JobAttempt, JobRecord, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNS = {"ready": "○", "scheduled": "○", "running": "▶", "succeeded": "✓", "failed": "✕", "cancelled": "–"}
_WIDEST = 60
_PAGE = 1000


def _filters(command: "Callable[..., Any]") -> "Callable[..., Any]":
    for option in (
        click.option("--adapter", metavar="NAME", help="Whose jobs.  [env: SAPWOOD_ADAPTER; default: default]"),
        click.option("--class", "classes", metavar="CLASS", type=listed, multiple=True, help="Only these classes."),
        click.option("--queue", "queues", metavar="NAME", type=listed, multiple=True, help="Only these queues."),
        click.option("-s", "--state", "states", metavar="STATE", type=values.states, multiple=True, help="Only these."),
    ):
        command = option(command)
    return command


@click.command(
    "list",
    cls=Command,
    has_json=True,
    short_help="List the jobs that are stored.",
    examples=("sapwood list", "sapwood list -s failed --queue email", "sapwood ls --class WelcomeEmail --json"),
    after="States: " + ", ".join(JobState) + ". Options that name several things take commas, or stand several times.",
)
@_filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, metavar="N", help="How many.")
@click.option("--after", "after", type=identity, default=0, metavar="ID", help="Only later ones.")
def list_command(
    states: tuple[tuple[str, ...], ...],
    queues: tuple[tuple[str, ...], ...],
    classes: tuple[tuple[str, ...], ...],
    limit: int,
    after: int,
    adapter: str | None,
) -> None:
    """List the jobs that are stored, oldest first."""
    call = invocation()
    store = _store(call, adapter)
    wanted = _filter(call, states, queues, classes)
    records = store.jobs(wanted, after=after, limit=limit + 1)
    more = len(records) > limit
    records = records[:limit]
    if call.json:
        items = [as_json(record) for record in records]
        document({"items": items, "next": records[-1].id if more else None})
        return
    if not records:
        call.note("no jobs" if wanted == JobFilter() and not after else "no jobs match")
        return
    now = datetime.now(UTC)
    table(
        ("ID", "STATE", "CLASS", "QUEUE", "TRIES", "WHEN", "ARGS", "ERROR"), [_row(record, now) for record in records]
    )
    if more:
        call.note(f"more: add --after {records[-1].id}")


def _row(record: JobRecord, now: datetime) -> tuple[str, ...]:
    sign = _SIGNS.get(record.state, "–")
    state = f"{click.style(sign, fg=None)} {state_name(record.state)}"
    return (
        str(record.id),
        state,
        shortened(short_name(record.job), _WIDEST),
        shortened(record.queue, _WIDEST),
        f"{record.attempts}/{record.max_attempts}",
        _when(record, now),
        shortened(_arguments(record), _WIDEST),
        shortened(record.last_error or "", _WIDEST),
    )


def _when(record: JobRecord, now: datetime) -> str:
    match record.state:
        case JobState.SCHEDULED | JobState.BLOCKED:
            return until(record.run_at, now)
        case JobState.RUNNING if record.locked_at is not None:
            return f"for {span((now - record.locked_at).total_seconds())}"
        case _:
            return until(record.finished_at or record.run_at, now)


def _arguments(record: JobRecord) -> str:
    """Return the arguments as people write them: ``user_id=42``."""
    given = _decoded(record.args)
    if not isinstance(given, dict):
        return record.args
    return " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items())


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def as_json(record: JobRecord) -> dict[str, Any]:
    """Return a record with the names it has in Python, its arguments decoded."""
    given: dict[str, Any] = msgspec.to_builtins(record)
    return given | {"args": _decoded(record.args), "result": None if record.result is None else _decoded(record.result)}


@click.command(
    "show",
    cls=Command,
    has_json=True,
    short_help="Show one job: its tries, and why it is not running.",
    examples=("sapwood show 42", "sapwood show 42 --json"),
    after="Exit code 5 where there is no such job. A job that succeeds is deleted, unless its class keeps it.",
)
@click.argument("id", type=identity)
@click.option("--adapter", metavar="NAME", help="Whose jobs.  [env: SAPWOOD_ADAPTER; default: default]")
def show_command(id: int, adapter: str | None) -> None:
    """Show one job: its tries, and why it is not running."""
    call = invocation()
    store = _store(call, adapter)
    record = store.get(id)
    if record is None:
        raise NotFound(
            f"there is no job #{id} in {store.describe()}",
            why="it never was, or it was cleared, or it succeeded: then its row goes unless its class says keep=True",
        )
    attempts = store.attempts(id)
    why = reason(record, living_workers(store), registry.names())
    if call.json:
        tries = [msgspec.to_builtins(attempt) for attempt in attempts]
        document(as_json(record) | {"history": tries, "why": why and why.why, "fix": (why and why.mend) or None})
        return
    say(f"{_SIGNS.get(record.state, '–')} {click.style(title(record), bold=True)}  {state_name(record.state)}")
    facts = _facts(record)
    if why is not None:
        facts.insert(0, ("why", clean(why.why)))
        if why.mend:
            facts.insert(1, ("fix", clean(why.mend)))
    for name, text in facts:
        say(f"  {click.style(name.ljust(8), bold=True)}  {text}")
    for attempt in attempts:
        _show_attempt(attempt)


def _facts(record: JobRecord) -> list[tuple[str, str]]:
    now = datetime.now(UTC)
    facts = [
        ("class", clean(record.job)),
        ("args", clean(record.args)),
        ("queue", f"{clean(record.queue)}, priority {record.priority}"),
        ("tries", f"{record.attempts} of {record.max_attempts}"),
        ("created", f"{until(record.created_at, now)} ({instant(record.created_at)})"),
    ]
    if record.state in {JobState.READY, JobState.SCHEDULED, JobState.BLOCKED}:
        facts.append(("run at", f"{until(record.run_at, now)} ({instant(record.run_at)})"))
    if record.locked_by is not None and record.locked_at is not None:
        facts.append(("worker", f"{clean(record.locked_by)}, for {span((now - record.locked_at).total_seconds())}"))
    if record.finished_at is not None:
        facts.append(("finished", f"{until(record.finished_at, now)} ({instant(record.finished_at)})"))
    if record.deaths:
        facts.append(("deaths", f"{record.deaths} of its workers died while they ran it"))
    if record.result is not None:
        facts.append(("result", clean(record.result)))
    if record.last_error is not None:
        facts.append(("error", clean(record.last_error)))
    return facts


def _show_attempt(attempt: JobAttempt) -> None:
    took = ""
    if attempt.started_at is not None:
        took = f", after {span((attempt.finished_at - attempt.started_at).total_seconds())}"
    say()
    say(f"  {click.style(f'try {attempt.attempt}', bold=True)}  {instant(attempt.finished_at)}{took}")
    for line in clean(attempt.traceback or attempt.error, lines=True).splitlines():
        say(f"    {line}".rstrip())


@click.command(
    "clear",
    cls=Command,
    has_json=True,
    short_help="Delete jobs.",
    examples=("sapwood clear -s failed", "sapwood clear --queue email --yes", "sapwood clear --dry-run"),
    after="Asks before it deletes. Exit code 6 where the answer was no, or where nobody was there to ask.",
)
@_filters
@click.option("--running", is_flag=True, help="Running jobs too: what they do goes on, unheard.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show how many there are, delete nothing.")
def clear_command(
    states: tuple[tuple[str, ...], ...],
    queues: tuple[tuple[str, ...], ...],
    classes: tuple[tuple[str, ...], ...],
    adapter: str | None,
    *,
    running: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Delete jobs: all that do not run, or those that match the options."""
    call = invocation()
    store = _store(call, adapter)
    wanted = _filter(call, states, queues, classes)
    if wanted.states is not None and JobState.RUNNING in wanted.states and not running:
        raise Misused("running jobs are deleted only on demand", mend="add --running")
    counts = _counts(store, wanted, running=running)
    total = sum(counts.values())
    parts = ", ".join(f"{number(count)} {state}" for state, count in counts.items())
    sentence = f"{number(total, 'job')}{f' ({parts})' if parts else ''} in {store.describe()}"
    if not total or dry_run:
        if call.json:
            document({"deleted": 0, "matching": counts})
        else:
            say(f"would delete {sentence}" if total else f"nothing to delete in {store.describe()}")
        return
    if not yes:
        tell(f"This deletes {sentence}.")
        call.confirm("Delete?")
    deleted = store.clear(wanted, running=running)
    if call.json:
        document({"deleted": deleted})
    else:
        say(f"{click.style('✓', fg='green')} deleted {number(deleted, 'job')}")


def _counts(store: BaseAdapter, wanted: JobFilter, *, running: bool) -> dict[str, int]:
    """Return how many jobs match, by state."""
    found: dict[str, int] = {}
    if wanted.jobs is None:
        for (queue, state), count in store.counts().items():
            if (wanted.queues is None or queue in wanted.queues) and (wanted.states is None or state in wanted.states):
                found[state.value] = found.get(state.value, 0) + count
    else:
        after = 0
        while page := store.jobs(wanted, after=after, limit=_PAGE):
            for record in page:
                found[record.state.value] = found.get(record.state.value, 0) + 1
            after = page[-1].id
    if not running:
        found.pop(JobState.RUNNING.value, None)
    return {state.value: found[state.value] for state in JobState if found.get(state.value)}


def _store(call: Invocation, adapter: str | None) -> BaseAdapter:
    return call.project.adapter(call.settings.get("adapter", adapter).value)


def _filter(
    call: Invocation,
    states: tuple[tuple[str, ...], ...],
    queues: tuple[tuple[str, ...], ...],
    classes: tuple[tuple[str, ...], ...],
) -> JobFilter:
    named = flat(states)
    jobs = flat(classes)
    if jobs is not None:
        # Rows may bear names that no code has any more: a full name is taken as it is.
        jobs = [name if ":" in name else call.project.find_class(name) for name in jobs]
    return JobFilter(
        states=None if named is None else [JobState(state) for state in named], queues=flat(queues), jobs=jobs
    )
