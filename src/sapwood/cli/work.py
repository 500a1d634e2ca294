"""``sapwood work``: a worker in this terminal."""

from collections import Counter
from collections.abc import Sequence

import click
import msgspec

from sapwood._version import __version__
from sapwood.adapters.base import BaseAdapter
from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.output import clean, number, until
from sapwood.cli.running import Plan, in_words, planned, run, setting, worker_options
from sapwood.cli.values import length

_NAMES_SHOWN = 4


@click.command(
    "work",
    cls=Command,
    short_help="Run jobs in this terminal until you stop it.",
    examples=("sapwood work", "sapwood work -c 10 --queue email,default", "sapwood work --adapter audit"),
    after="Ctrl-C lets running jobs finish and stops; a second one ends at once, and the jobs are taken back by the "
    "next worker. A restart is needed to pick up changed code.",
)
@worker_options
@click.option(
    "--poll", type=length, metavar="SECONDS", help="Look this often at least.  [env: SAPWOOD_POLL; default: 0.5]"
)
def work_command(
    queues: tuple[tuple[str, ...], ...], concurrency: int | None, adapter: str | None, poll: float | None
) -> None:
    """Run jobs in this terminal until you stop it."""
    call = invocation()
    plan = planned(call, queues, concurrency, adapter or setting(call, "adapter"), poll)
    store = call.project.adapter(plan.adapter)
    _banner(call, plan, store)
    tally = run(call, plan, until_empty=False)
    call.note(f"{click.style('✓', fg='green')} stopped: {in_words(msgspec.structs.asdict(tally))}")


def _banner(call: Invocation, plan: Plan, store: BaseAdapter) -> None:
    project = call.project
    names = sorted(name.rpartition(":")[2] for name in project.classes())
    more = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" + {more} more" if more > 0 else "")
    pending: Sequence[str] = getattr(store, "pending_migrations", tuple)()
    others = [name for name in project.app.adapters if name != plan.adapter]
    call.note(f"{click.style('◆', fg='green')} sapwood {__version__} · {project.name} · {store.describe()}")
    call.note(f"  queues   {', '.join(plan.queues) if plan.queues is not None else 'all'} · {plan.concurrency} at once")
    call.note(f"  jobs     {clean(shown) or 'none: sapwood generate job NAME, or imports=[…]'}")
    if pending:
        call.note(f"  tables   {number(len(pending), 'step')} missing: sapwood migrate")
    else:
        call.note(f"  waiting  {_waiting(store)}")
    for name in others:
        call.note(f'  note     adapter "{name}" is not served here: sapwood work --adapter {name}')
    call.note("  Ctrl-C finishes what runs and stops; twice stops now")


def _waiting(store: BaseAdapter) -> str:
    states: Counter[str] = Counter()
    for (_, state), count in store.counts().items():
        states[state.value] += count
    parts = [
        f"{number(states[state])} {state}" for state in ("ready", "scheduled", "running", "failed") if states[state]
    ]
    due = store.next_run_at()
    return (" · ".join(parts) or "nothing") + (f" (next {until(due)})" if due is not None else "")
