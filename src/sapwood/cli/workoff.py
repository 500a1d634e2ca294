"""``sapwood workoff``: workers that end when nothing is ready."""

from collections import Counter
from collections.abc import Sequence

import click
import msgspec

from sapwood.adapters.base import BaseAdapter
from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.output import document, number, say, until
from sapwood.cli.problems import ExitCode, Refused
from sapwood.cli.processes import side_by_side
from sapwood.cli.running import Plan, in_words, planned, run, setting, worker_options
from sapwood.record import JobState
from sapwood.worker import Tally


@click.command(
    "workoff",
    cls=Command,
    has_json=True,
    short_help="Run what is ready, then exit.",
    examples=("sapwood workoff", "sapwood workoff -n 4 -c 10", "sapwood workoff --queue email --fail-on-error"),
    after="Jobs that are not due are left. For cron, for CI and for tests.",
)
@worker_options
@click.option("-n", "--processes", type=click.IntRange(min=1), default=1, metavar="N", help="Processes.  [default: 1]")
@click.option("--fail-on-error", is_flag=True, help="Exit with 1 where a job failed, for good or not.")
def workoff_command(
    queues: tuple[tuple[str, ...], ...],
    concurrency: int | None,
    adapter: str | None,
    processes: int,
    *,
    fail_on_error: bool,
) -> ExitCode:
    """Run what is ready, then exit."""
    call = invocation()
    adapter = adapter or setting(call, "adapter")
    # All is planned before anything runs: a mistake in an option must not come to light half-way.
    names = [adapter] if adapter else list(call.project.app.adapters)
    plans = [planned(call, queues, concurrency, name, None) for name in names]
    if processes == 1:
        counted: Counter[str] = Counter()
        for plan in plans:
            counted.update(msgspec.structs.asdict(run(call, plan, until_empty=True)))
    else:
        if any(call.project.adapter(name).is_volatile for name in names):
            raise Refused("jobs in memory cannot be shared between processes", mend="leave out -n, or use SQLite")
        counted = side_by_side([_child_command(call, plan) for plan in plans for _ in range(processes)])
    left = {name: _left(call.project.adapter(name)) for name in names}
    if call.json:
        document(
            {**msgspec.to_builtins(Tally(**counted)), "left": {name: states for name, (states, _) in left.items()}}
        )
    else:
        _summary(counted, [sentence for _, sentence in left.values() if sentence])
    return ExitCode.FAILED if fail_on_error and counted["failed"] + counted["retried"] else ExitCode.DONE


def _child_command(call: Invocation, plan: Plan) -> list[str]:
    command = ["workoff", "--json", "--app", call.project.name, "--adapter", plan.adapter]
    command += ["--concurrency", str(plan.concurrency)]
    if plan.queues is not None:
        command += ["--queue", ",".join(plan.queues)]
    return command + ["--quiet"] * call.quiet + ["--verbose"] * call.verbose


def _left(store: BaseAdapter) -> tuple[dict[str, int], str]:
    """Return how many jobs remain by state, and what there is to say of them."""
    states: Counter[str] = Counter()
    for (_, state), count in store.counts().items():
        states[state.value] += count
    due = store.next_run_at()
    said = []
    if states[JobState.SCHEDULED] and due is not None:
        waiting = number(states[JobState.SCHEDULED], "scheduled job")
        said.append(f"{waiting} {'is' if states[JobState.SCHEDULED] == 1 else 'are'} not due (next {until(due)})")
    if states[JobState.READY]:
        said.append(f"{number(states[JobState.READY], 'job')} left ready")
    if states[JobState.RUNNING]:
        said.append(f"{number(states[JobState.RUNNING], 'job')} running elsewhere")
    if states[JobState.FAILED]:
        said.append(f"{number(states[JobState.FAILED], 'job')} failed for good: sapwood list -s failed")
    return {state: count for state, count in states.items() if count}, "\n".join(said)


def _summary(counted: "Counter[str]", left: Sequence[str]) -> None:
    bad = counted["failed"] + counted["retried"]
    sign = click.style("✕", fg="red") if bad else click.style("✓", fg="green")
    say(f"{sign} {in_words(counted)}")
    for sentence in left:
        for line in sentence.splitlines():
            say(f"  {line}")
