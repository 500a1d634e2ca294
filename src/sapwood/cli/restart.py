"""``sapwood restart``: replace the workers in the background, one by one."""

import time
from pathlib import Path
from typing import Any

import click

from sapwood._version import __version__
from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.output import number, say, span
from sapwood.cli.planning import plan_supervisor, plan_workers, refuse_memory
from sapwood.cli.problems import Broken, ExitCode
from sapwood.cli.state import state_folder, state_option
from sapwood.cli.values import length
from sapwood.daemon import NoAnswer, StateFolder
from sapwood.plan import Plan
from sapwood.timing import boot_time


@click.command(
    "restart",
    cls=Command,
    short_help="Replace the workers in the background, one by one.",
    examples=("sapwood restart", "sapwood restart -n default:4,email:1"),
    after="Each worker stops when its successor is ready, so that there is no gap; one that does not get ready ends "
    "the restart, and the others go on as they were. Where the release of Sapwood differs, all stop first and the "
    "supervisor is replaced too.",
)
@state_option
@click.option("-n", "spec", metavar="SPEC", help="Workers from now on.  [default: as before]")
@click.option(
    "-c", "--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs at once.  [default: as before]"
)
@click.option(
    "--wait", "patience", type=length, default="60", metavar="SECONDS", help="For each worker.  [default: 60]"
)
def restart_command(state_dir: Path | None, spec: str | None, concurrency: int | None, patience: float) -> ExitCode:
    """Replace the workers in the background, one by one, by those that run today's code."""
    call = invocation()
    folder = state_folder(call, state_dir)
    folder.find()
    began = boot_time()
    before = folder.ask({"verb": "options"}, seconds=5)
    plan = _plan(call, before, spec, concurrency)
    answer = folder.ask({"verb": "restart", "plan": plan.encoded().decode(), "patience": patience}, seconds=3600)
    if answer.get("error"):
        raise Broken("the workers were not restarted", why=str(answer["error"]), mend="see .sapwood/worker.log")
    if answer.get("successor"):
        call.note(f"another release: the supervisor is replaced by {__version__}")
        _wait_for_successor(folder, plan, patience + plan.shutdown_timeout)
    say(
        f"{click.style('✓', fg='green')} {number(len(plan.workers), 'worker')} restarted in {span(boot_time() - began)}"
    )
    return ExitCode.DONE


def _plan(call: Invocation, before: dict[str, Any], spec: str | None, concurrency: int | None) -> Plan:
    said = dict(before["options"])
    shutdown_timeout, probe = said.pop("shutdown_timeout", 25), said.pop("probe", None)
    said["queues"] = tuple(tuple(group) for group in said.get("queues") or ())
    if spec is not None:
        said["queues"] = ()
    if concurrency is not None:
        said["concurrency"] = concurrency
    call.app = call.app or before["app"]
    spec = spec or before["spec"]
    workers = plan_workers(call, spec=spec, **said)
    refuse_memory(call, workers)
    options = {"shutdown_timeout": shutdown_timeout, "probe": None if probe is None else tuple(probe)}
    return plan_supervisor(call, workers, spec=spec, options=said | options, **options)


def _wait_for_successor(folder: StateFolder, plan: Plan, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        try:
            status = folder.ask({"verb": "status"}, seconds=1)
        except NoAnswer:
            status = {}
        supervisor = status.get("supervisor", {})
        if supervisor.get("release") == plan.release and supervisor.get("state") == "ready":
            return
        time.sleep(0.1)
    raise Broken("the new supervisor did not get ready", why=f"its state is {status or 'unknown'}")
