"""``sapwood status``: what runs in the background."""

from pathlib import Path
from typing import Any

import click

from sapwood.cli.command import Command, invocation
from sapwood.cli.output import clean, document, number, say, short_name, span, table
from sapwood.cli.problems import ExitCode
from sapwood.cli.state import found, state_folder, state_option
from sapwood.daemon import NoAnswer

_COLOURS = {"ready": "green", "starting": "yellow", "stopping": "yellow", "waiting": "red"}


@click.command(
    "status",
    cls=Command,
    has_json=True,
    short_help="Show the workers in the background.",
    examples=("sapwood status", "sapwood status --json"),
    after="Exits with 1 where nothing runs, or where it does not answer.",
)
@state_option
def status_command(state_dir: Path | None) -> ExitCode:
    """Show the workers in the background: what each runs, its memory, its last sign of life."""
    call = invocation()
    folder = state_folder(call, state_dir)
    identity = found(folder)
    if identity is None:
        if call.json:
            document({"supervisor": None, "stores": {}, "workers": []})
        else:
            say("no workers are running in the background: sapwood start")
        return ExitCode.FAILED
    try:
        status = folder.ask({"verb": "status"}, seconds=10)
    except NoAnswer:
        status = {"error": "it is busy"}
    if "supervisor" not in status:
        if call.json:
            document({"supervisor": {"pid": identity.pid, "state": "silent"}, "stores": {}, "workers": []})
        else:
            say(f"the supervisor (pid {identity.pid}) lives, and does not answer: it may be frozen, or just ending")
        return ExitCode.FAILED
    if call.json:
        document(status)
    else:
        _show(status)
    return ExitCode.DONE


def _show(status: dict[str, Any]) -> None:
    supervisor = status["supervisor"]
    restarts = sum(worker["restarts"] for worker in status["workers"])
    say(
        f"supervisor {supervisor['pid']}  {supervisor['state']}  up {span(supervisor['seconds'])}  "
        f"{_memory(supervisor['memory'])}  {number(restarts, 'restart')}  release {supervisor['release']}"
    )
    for name, store in status["stores"].items():
        if store["error"]:
            say(f"  {clean(name)}: {clean(store['error'])}")
        elif store["address"]:
            beat = "no beat yet" if store["beat_seconds"] is None else f"last beat {span(store['beat_seconds'])} ago"
            say(f"  {clean(name)}: {clean(store['address'])}  {beat}")
    header = ("WORKER", "STATE", "PID", "QUEUES", "BUSY", "DONE", "FAILED", "MEMORY", "HEARD", "RUNS")
    table(header, [_row(worker) for worker in status["workers"]])
    for worker in status["workers"]:
        if worker["last_end"]:
            say(f"  {clean(worker['name'])}: the one before: {clean(worker['last_end'])}")


def _row(worker: dict[str, Any]) -> tuple[str, ...]:
    queues = "all" if worker["queues"] is None else ", ".join(worker["queues"])
    state = click.style(worker["state"], fg=_COLOURS.get(worker["state"]))
    if worker["pid"] is None:
        return (clean(worker["name"]), f"{state} {span(worker['starts_in'])}", "", clean(queues), *[""] * 6)
    running = worker["running"]
    runs = ", ".join(f"{short_name(job['job'])} #{job['id']} ({span(job['seconds'])})" for job in running)
    return (
        clean(worker["name"]),
        state,
        str(worker["pid"]),
        clean(queues),
        f"{len(running)}/{worker['concurrency']}",
        number(worker["done"]),
        number(worker["failed"]),
        _memory(worker["memory"]),
        f"{span(worker['heard_seconds'])} ago",
        runs,
    )


def _memory(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MB"
