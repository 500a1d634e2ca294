"""From the command line and the app's worker groups to the plan of a supervisor."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sapwood._version import __version__
from sapwood.app import WorkerGroup
from sapwood.cli.command import Invocation
from sapwood.cli.problems import Misused, Refused
from sapwood.cli.running import setting
from sapwood.cli.values import flat
from sapwood.options import run_time
from sapwood.plan import Plan, WorkerPlan
from sapwood.spec import ALL, parse

# Without the current directory on the path: no file of the project may hide a module of ours.
WORKER = (sys.executable, "-P", "-m", "sapwood.cli.child")
SUPERVISOR = (sys.executable, "-P", "-m", "sapwood.cli.supervise")


def plan_workers(
    call: Invocation,
    *,
    spec: str | None = None,
    queues: tuple[tuple[str, ...], ...] = (),
    concurrency: int | None = None,
    adapter: str | None = None,
    poll: float | None = None,
) -> Sequence[WorkerPlan]:
    """Return the workers that the options, the environment, pyproject.toml and the app's worker groups ask for."""
    at_once, rest = setting(call, "concurrency", concurrency), setting(call, "poll", poll)
    numbers: Counter[str] = Counter()
    workers = []
    for group in _groups(call, spec, setting(call, "queues", flat(queues)), adapter or setting(call, "adapter")):
        label = ALL if group.queues is None else "+".join(group.queues)
        if group.adapter != "default":
            label = f"{group.adapter}/{label}"
        for _ in range(group.count):
            numbers[label] += 1
            workers.append(
                WorkerPlan(
                    name=f"{label}.{numbers[label]}",
                    group=label,
                    adapter=group.adapter,
                    queues=group.queues,
                    concurrency=group.concurrency if at_once is None else at_once,
                    poll_interval=group.poll_interval if rest is None else rest,
                    max_jobs=group.max_jobs,
                    max_memory=group.max_memory,
                    max_runtime=run_time(group.max_runtime, "max_runtime"),
                )
            )
    return workers


def _groups(
    call: Invocation, spec: str | None, queues: Sequence[str] | None, adapter: str | None
) -> Sequence[WorkerGroup]:
    project = call.project
    groups = [group for group in project.app.workers if adapter is None or group.adapter == adapter]
    if spec is None and queues is None and groups:
        return groups
    name = adapter or project.default_adapter
    project.adapter(name)
    for queue in queues or ():
        project.check_queue(queue)
    shares = [(queues, 1)]
    if spec is not None:
        shares = [(share.queues, share.count) for share in parse(spec, declared=project.app.queues)]
        if queues is not None and shares[0][0] is not None:
            raise Misused("queues are named twice, by -n and by --queue", mend=f"write -n {'+'.join(queues)}:2")
        if queues is not None:
            shares = [(queues, shares[0][1])]
    return [_alike(groups, share, name, count) for share, count in shares]


def _alike(groups: Sequence[WorkerGroup], queues: Sequence[str] | None, adapter: str, count: int) -> WorkerGroup:
    """Return a group for these queues, with the other settings of the app's own group for them, if there is one."""
    for group in groups:
        if group.adapter == adapter and _set(group.queues) == _set(queues):
            settings = {name: getattr(group, name) for name in WorkerGroup.__struct_fields__}
            return WorkerGroup(**settings | {"queues": queues, "count": count})
    return WorkerGroup(queues=queues, count=count, adapter=adapter)


def _set(queues: Sequence[str] | None) -> frozenset[str] | None:
    return None if queues is None else frozenset(queues)


def plan_supervisor(call: Invocation, workers: Sequence[WorkerPlan], **options: Any) -> Plan:
    """Return the plan of a supervisor for these workers."""
    app = call.project.app
    adapters = dict.fromkeys(worker.adapter for worker in workers)
    return Plan(
        app=call.project.name,
        directory=str(Path.cwd()),
        release=__version__,
        command=WORKER,
        workers=workers,
        stores={name: app.adapter(name).address() for name in adapters},
        timing=app.timing,
        quiet=call.quiet,
        verbose=call.verbose,
        **options,
    )


def refuse_memory(call: Invocation, workers: Sequence[WorkerPlan]) -> None:
    """Refuse to start processes for jobs that no other process can see."""
    if any(call.project.adapter(worker.adapter).is_volatile for worker in workers):
        raise Refused("jobs in memory cannot be shared between processes", mend="leave out -n, or use SQLite")
