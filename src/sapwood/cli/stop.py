"""``sapwood stop``: end the workers in the background."""

import signal
from pathlib import Path

import click

from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.output import clean, say, span
from sapwood.cli.problems import Broken, ExitCode, Misused
from sapwood.cli.state import state_folder, state_option
from sapwood.cli.values import length
from sapwood.daemon import Identity, StateFolder
from sapwood.spec import Share, parse
from sapwood.timing import boot_time

_MARGIN = 10.0
"""Seconds beyond the shutdown timeout: for the store to take back what was not finished."""


@click.command(
    "stop",
    cls=Command,
    short_help="Stop the workers in the background.",
    examples=("sapwood stop", "sapwood stop -n email", "sapwood stop --now"),
    after="Running jobs may finish within the time that start was given; what has not finished by then is ended and "
    "handed back, and keeps its try.",
)
@state_option
@click.option("-n", "spec", metavar="SPEC", help="Only these groups; all, where it is the SPEC that runs.")
@click.option("--now", is_flag=True, help="Do not wait for running jobs; they are handed back.")
@click.option(
    "--timeout", type=length, metavar="SECONDS", help="Wait so long for the end.  [default: as start was told]"
)
def stop_command(state_dir: Path | None, spec: str | None, timeout: float | None, *, now: bool) -> ExitCode:
    """Stop the workers in the background."""
    call = invocation()
    folder = state_folder(call, state_dir)
    identity = folder.find()
    groups = None if spec is None else _groups(folder, parse(spec))
    if groups is not None:
        _stop_groups(folder, groups, timeout)
        say(f"{click.style('✓', fg='green')} stopped: {clean(', '.join(groups))}")
        return ExitCode.DONE
    stopped(call, folder, identity, timeout, now=now)
    return ExitCode.DONE


def stopped(
    call: Invocation, folder: StateFolder, identity: Identity, timeout: float | None = None, *, now: bool = False
) -> None:
    """Stop a supervisor, and wait for its end.

    Raises:
        Broken: it has not ended in time.
    """
    began = boot_time()
    patience = timeout
    if patience is None:
        told = folder.ask({"verb": "options"}, seconds=5) if not now else {}
        patience = float((told.get("options") or {}).get("shutdown_timeout") or 25) + _MARGIN
    call.note("stopping: running jobs may finish" if not now else "stopping now: running jobs are handed back")
    folder.signal(identity, signal.SIGTERM)
    if now:
        folder.signal(identity, signal.SIGINT)
    if not folder.wait_for_end(identity, patience):
        raise Broken(
            f"the supervisor (pid {identity.pid}) has not ended after {span(patience)}",
            why="jobs may still be running: sapwood status",
            mend="wait with a longer --timeout, or sapwood stop --now",
        )
    say(f"{click.style('✓', fg='green')} stopped in {span(boot_time() - began)}")


def _groups(folder: StateFolder, shares: tuple[Share, ...]) -> list[str] | None:
    """Return the groups that are meant, None for all."""
    running = folder.ask({"verb": "options"}, seconds=5)
    names = running["groups"]
    labels = [share.label for share in shares]
    spec = running["spec"]
    if set(labels) == set(names) or (spec is not None and parse(spec) == shares):
        return None
    for label in labels:
        if label not in names:
            raise Misused(f'no group "{label}" is running', why=f"there are {', '.join(names)}", mend="sapwood status")
    return labels


def _stop_groups(folder: StateFolder, groups: list[str], timeout: float | None) -> None:
    answer = folder.ask({"verb": "stop", "groups": groups}, seconds=3600 if timeout is None else timeout)
    if answer.get("error"):
        raise Broken(f"{', '.join(groups)} did not stop", why=str(answer["error"]))
