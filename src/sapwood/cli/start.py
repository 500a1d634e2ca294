"""``sapwood start``: workers in the background."""

import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from sapwood.cli.command import Command, invocation
from sapwood.cli.output import clean, document, number, say
from sapwood.cli.planning import plan_supervisor, plan_workers, refuse_memory
from sapwood.cli.problems import Broken, ExitCode, Refused
from sapwood.cli.state import state_folder, state_option
from sapwood.cli.supervise import arguments
from sapwood.cli.values import length
from sapwood.cli.work import supervised_options
from sapwood.daemon import AlreadyRunning, NotRunning, StateFolder
from sapwood.host import environment
from sapwood.plan import Plan

_LINES_SHOWN = 10
_ANOTHER = "choose another by --log-file"


@click.command(
    "start",
    cls=Command,
    has_json=True,
    short_help="Start workers in the background.",
    examples=("sapwood start", "sapwood start -n default:2,email:1", "sapwood start -n 4 --log-file log/worker.log"),
    after="A supervisor replaces workers that die. On a server a service manager is a good parent for it: "
    "sapwood generate service systemd.",
)
@supervised_options
@state_option
@click.option(
    "--log-file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="[default: .sapwood/worker.log]"
)
@click.option(
    "--wait",
    "patience",
    type=length,
    default="30",
    metavar="SECONDS",
    help="Until the workers are ready.  [default: 30]",
)
def start_command(
    state_dir: Path | None,
    log_file: Path | None,
    patience: float,
    spec: str | None,
    shutdown_timeout: float,
    probe_port: tuple[str, int] | None,
    **said: Any,
) -> ExitCode:
    """Start workers in the background, and wait until they are ready."""
    call = invocation()
    if not hasattr(os, "fork"):
        raise Refused("start is not for Windows", mend="sapwood work -n SPEC, under a service manager")
    folder = state_folder(call, state_dir)
    _refuse_second(folder)
    workers = plan_workers(call, spec=spec, **said)
    refuse_memory(call, workers)
    options = {"shutdown_timeout": shutdown_timeout, "probe": probe_port}
    plan = plan_supervisor(call, workers, spec=spec, options=said | options, **options)
    log = (log_file or folder.path / "worker.log").absolute()
    folder.prepare()
    began = _started(plan, folder, log, patience)
    if call.json:
        document(began)
    else:
        names = "; ".join(f"{clean(worker['name'])} {worker['pid']}" for worker in began["workers"])
        up = f"{number(len(began['workers']), 'worker')} up (pid {began['supervisor']['pid']}; {names})"
        say(f"{click.style('✓', fg='green')} {up}   log: {_near(log)}")
    return ExitCode.DONE


def _refuse_second(folder: StateFolder) -> None:
    try:
        identity = folder.find()
    except NotRunning:
        return
    raise AlreadyRunning(
        f"workers are running already (pid {identity.pid})", mend="sapwood restart, or sapwood stop first"
    )


def _started(plan: Plan, folder: StateFolder, log: Path, patience: float) -> Mapping[str, Any]:
    """Start the supervisor; return how it stands once its workers are ready.

    Raises:
        Broken: they did not get ready. Nothing is left running.
    """
    ours, theirs = os.pipe()
    words = arguments(plan, state=folder.path, ready=theirs)
    paper = int(words[words.index("--plan") + 1])
    written = _opened(log)
    before = log.stat().st_size
    process = subprocess.Popen(  # noqa: S603 - our own command
        words,
        cwd=plan.directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=written,
        stderr=written,
        pass_fds=(paper, theirs),
        start_new_session=True,
    )
    for descriptor in (paper, theirs, written):
        os.close(descriptor)
    try:
        answer = _answer(ours, patience)
    finally:
        os.close(ours)
    if answer is not None and "error" not in answer:
        return answer
    why = f"not ready after {patience:g} s" if answer is None else str(answer["error"])
    _ended(process)
    lines = _tail(log, before)
    raise Broken("the workers did not get ready", why="\n".join([why, *lines]), mend=f"see {_near(log)}")


def _opened(log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        # A pipe that nobody reads would be waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        written = os.open(log, flags, 0o600)
    except (OSError, ValueError) as error:
        raise Refused(
            f"cannot write {log}", why=getattr(error, "strerror", None) or str(error), mend=_ANOTHER
        ) from error
    status = os.fstat(written)
    if stat.S_ISREG(status.st_mode) and status.st_uid not in {0, os.geteuid()}:
        os.close(written)
        raise Refused(f"{log} is somebody else's file", why="they could change what it says", mend=_ANOTHER)
    if stat.S_ISFIFO(status.st_mode):
        os.close(written)
        raise Refused(f"{log} is a pipe", mend=_ANOTHER)
    return written


def _answer(pipe: int, patience: float) -> dict[str, Any] | None:
    """Return what the supervisor says, None where it says nothing in time."""
    deadline = time.monotonic() + patience
    said = b""
    while not said.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        more = os.read(pipe, 65_536)
        if not more:
            return {"error": "the supervisor ended"}
        said += more
    answer: dict[str, Any] = msgspec.json.decode(said)
    return answer


def _ended(process: "subprocess.Popen[bytes]") -> None:
    """See that nothing is left running of what did not get ready."""
    for number_, seconds in ((signal.SIGTERM, 5), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        process.send_signal(number_)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def _tail(log: Path, start: int) -> list[str]:
    """Return the last lines that were written after ``start``."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    return lines[-_LINES_SHOWN:]


def _near(path: Path) -> str:
    here = Path.cwd()
    return clean(str(path.relative_to(here) if path.is_relative_to(here) else path))
