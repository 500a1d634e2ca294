"""``sapwood work``: workers in this terminal."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from sapwood._version import __version__
from sapwood.adapters.base import BaseAdapter
from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.output import clean, number, until
from sapwood.cli.planning import plan_supervisor, plan_workers, refuse_memory
from sapwood.cli.problems import Misused
from sapwood.cli.running import Plan, in_words, run, worker_options
from sapwood.cli.values import address, length
from sapwood.plan import WorkerPlan

_NAMES_SHOWN = 4


def supervised_options(command: Any) -> Any:
    """Add the options of every command that starts workers under a supervisor."""
    for option in (
        click.option(
            "--shutdown-timeout",
            type=length,
            default="25",
            metavar="SECONDS",
            help="Time for running jobs at the end.  [default: 25]",
        ),
        click.option("--probe-port", type=address, metavar="[HOST:]PORT", help="Answer GET /live and /ready there."),
        click.option(
            "--poll",
            type=length,
            metavar="SECONDS",
            help="Look this often at least.  [env: SAPWOOD_POLL; default: 0.5]",
        ),
        click.option(
            "-n",
            "spec",
            metavar="SPEC",
            help="Workers: 4, default:2,email:1 or default+email:2.  [default: the app's worker groups]",
        ),
    ):
        command = option(command)
    return worker_options(command)


@click.command(
    "work",
    cls=Command,
    short_help="Run jobs in this terminal until you stop it.",
    examples=(
        "sapwood work",
        "sapwood work -c 10 --queue email,default",
        "sapwood work -n default:2,email:1",
        "sapwood work --reload",
    ),
    after="One worker runs right here. With -n, and where the app has several worker groups, each one is a process of "
    "its own, which a supervisor replaces when it dies. Ctrl-C lets running jobs finish and stops; a second one ends "
    "at once, and the jobs are handed back.",
)
@supervised_options
@click.option("--reload", is_flag=True, help="Restart the workers when the code changes.")
def work_command(
    queues: tuple[tuple[str, ...], ...],
    concurrency: int | None,
    adapter: str | None,
    poll: float | None,
    spec: str | None,
    shutdown_timeout: float,
    probe_port: tuple[str, int] | None,
    *,
    reload: bool,
) -> None:
    """Run jobs in this terminal until you stop it."""
    call = invocation()
    workers = plan_workers(call, spec=spec, queues=queues, concurrency=concurrency, adapter=adapter, poll=poll)
    limited = any(worker.max_jobs or worker.max_memory for worker in workers) or _has_time_limits(call, workers)
    # Only a supervisor tells systemd that it is ready, and that it lives.
    awaited = bool(os.environ.get("NOTIFY_SOCKET"))
    _banner(call, workers)
    if spec is None and len(workers) == 1 and not (reload or probe_port or limited or awaited):
        (one,) = workers
        plan = Plan(one.adapter, one.queues, one.concurrency, one.poll_interval, shutdown_timeout, one.max_runtime)
        tally = run(call, plan, until_empty=False)
        call.note(f"{click.style('✓', fg='green')} stopped: {in_words(msgspec.structs.asdict(tally))}")
        return
    refuse_memory(call, workers)
    watched = _watched(call) if reload else None
    plan_of_all = plan_supervisor(
        call, workers, spec=spec, shutdown_timeout=shutdown_timeout, probe=probe_port, reload=watched
    )
    from sapwood.cli.supervise import become  # noqa: PLC0415 - one worker needs no supervisor

    call.project.app.close()
    become(plan_of_all)


def _has_time_limits(call: Invocation, workers: Sequence[WorkerPlan]) -> bool:
    """Say whether jobs may have to be ended with their process: then somebody else must do it, and start the next."""
    if any(call.project.adapter(worker.adapter).is_volatile for worker in workers):
        return False
    limited = [job for job in call.project.classes().values() if job.max_runtime is not None and not job.isolated]
    return bool(limited) or any(worker.max_runtime for worker in workers)


def _watched(call: Invocation) -> Sequence[str]:
    try:
        import watchfiles  # noqa: F401, PLC0415 - an extra, for development
    except ImportError as error:
        raise Misused(
            "--reload needs watchfiles", why="it is not installed", mend='pip install "sapwood[reload]"'
        ) from error
    folders = [call.project.root, Path.cwd()]
    return sorted({str(folder.resolve()) for folder in folders})


def _banner(call: Invocation, workers: Sequence[WorkerPlan]) -> None:
    project = call.project
    served = list(dict.fromkeys(worker.adapter for worker in workers))
    stores = {name: project.adapter(name) for name in served}
    names = sorted(name.rpartition(":")[2] for name in project.classes())
    more = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" + {more} more" if more > 0 else "")
    pending = sum(_pending(store) for store in stores.values())
    others = [name for name in project.app.adapters if name not in served]
    where = " · ".join(store.describe() for store in stores.values())
    call.note(f"{click.style('◆', fg='green')} sapwood {__version__} · {project.name} · {where}")
    call.note(_who(workers))
    call.note(f"  jobs     {clean(shown) or 'none: sapwood generate job NAME, or imports=[…]'}")
    if pending:
        call.note(f"  tables   {number(pending, 'step')} missing: sapwood migrate")
    else:
        call.note(f"  waiting  {_waiting(list(stores.values()))}")
    for name in others:
        call.note(f'  note     adapter "{name}" is not served here: sapwood work --adapter {name}')
    call.note("  Ctrl-C finishes what runs and stops; twice stops now")


def _who(workers: Sequence[WorkerPlan]) -> str:
    if len(workers) == 1:
        (one,) = workers
        return f"  queues   {', '.join(one.queues) if one.queues is not None else 'all'} · {one.concurrency} at once"
    counts = Counter(worker.group for worker in workers)
    groups = ", ".join(f"{clean(group)} ×{count}" for group, count in counts.items())
    return f"  workers  {groups} · {sum(worker.concurrency for worker in workers)} at once"


def _pending(store: BaseAdapter) -> int:
    """Return how many steps somebody has to take: those that the store takes by itself at first use are no matter."""
    if getattr(store, "migrates_itself", False):
        return 0
    return len(getattr(store, "pending_migrations", tuple)())


def _waiting(stores: Sequence[BaseAdapter]) -> str:
    states: Counter[str] = Counter()
    for store in stores:
        for (_, state), count in store.counts().items():
            states[state.value] += count
    parts = [
        f"{number(states[state])} {state}" for state in ("ready", "scheduled", "running", "failed") if states[state]
    ]
    due = min((moment for store in stores if (moment := store.next_run_at()) is not None), default=None)
    return (" · ".join(parts) or "nothing") + (f" (next {until(due)})" if due is not None else "")
