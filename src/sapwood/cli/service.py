"""``sapwood generate service``: the files that have a service manager run the workers."""

import pwd
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from sapwood._version import __version__
from sapwood.cli import manifests
from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.files import Change, apply
from sapwood.cli.manifests import Service
from sapwood.cli.output import clean, say, tell
from sapwood.cli.planning import plan_workers, refuse_memory
from sapwood.cli.problems import Misused, Refused
from sapwood.cli.running import setting
from sapwood.cli.values import length

if TYPE_CHECKING:
    from sapwood.cli.discovery import Project

_PORT = 8080
_HONCHO = 5
"""Seconds that honcho waits at the end before it kills."""


class _Manager(Struct, frozen=True):
    """A service manager, and what is written for it."""

    name: str
    """What its service is called where nothing else is said."""

    changes: Callable[[Service, "Project"], Sequence[Change]]
    next: Callable[[Service, "Project"], Sequence[str]]
    needs_port: bool = False


@click.command(
    "service",
    cls=Command,
    short_help="Write what has a service manager run the workers.",
    examples=(
        "sapwood generate service systemd",
        "sapwood generate service systemd -n default:2,email:1",
        "sapwood generate service procfile --name mailer -n email:1",
        "sapwood generate service docker --shutdown-timeout 5m",
    ),
    after="Files that are there are kept, unless --force is given. The Docker and Kubernetes files are checked by "
    "linters, and not run by the tests of Sapwood.",
)
@click.argument("manager", type=click.Choice(["systemd", "supervisor", "docker", "procfile", "kubernetes"]))
@click.option("-n", "spec", metavar="SPEC", help="Workers, as for work.  [default: the app's worker groups, or 1]")
@click.option("-c", "--concurrency", type=click.IntRange(min=1), metavar="N", help="Jobs at once in each worker.")
@click.option(
    "--shutdown-timeout",
    type=length,
    default="25",
    metavar="SECONDS",
    help="Time for running jobs at the end.  [default: 25]",
)
@click.option("--name", metavar="NAME", help="What the service is called.  [default: sapwood, worker]")
@click.option(
    "--probe-port",
    "port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    help="Answer GET /live and /ready there.  [default in containers: 8080]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written, write nothing.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def service_command(
    manager: str,
    spec: str | None,
    concurrency: int | None,
    shutdown_timeout: float,
    name: str | None,
    port: int | None,
    *,
    dry_run: bool,
    force: bool,
) -> None:
    """Write what has a service manager run the workers."""
    call, chosen = invocation(), _MANAGERS[manager]
    project = call.project
    service = Service(
        name=_checked_name(name or chosen.name),
        root=_checked_root(project.root),
        python=sys.executable,
        app=project.name,
        spec=_checked_spec(call, spec, concurrency),
        concurrency=concurrency,
        shutdown_timeout=shutdown_timeout,
        port=port or (_PORT if chosen.needs_port else None),
        user=_owner(project.root),
    )
    changes = chosen.changes(service, project)
    if not force:
        _refuse_clash(service, changes)
    apply(list(changes), project.root, dry_run=dry_run)
    if dry_run:
        tell("Nothing was written: --dry-run.")
        return
    say()
    for place, line in enumerate(chosen.next(service, project)):
        say(f"{'' if place else 'Next:':<6} {line}")


# --- what is written, and what is left to do ------------------------------------------------------------------------


def _systemd(service: Service, project: "Project") -> Sequence[Change]:
    del project
    return [Change(service.root / "deploy" / f"{service.name}.service", manifests.systemd(service))]


def _systemd_next(service: Service, project: "Project") -> Sequence[str]:
    del project
    return [
        *([] if service.user else ["choose a User= in the unit"]),
        f"sudo cp deploy/{service.name}.service /etc/systemd/system/",
        f"sudo systemctl daemon-reload && sudo systemctl enable --now {service.name}",
        f"secrets go to /etc/default/{service.name}, mode 600",
    ]


def _supervisor(service: Service, project: "Project") -> Sequence[Change]:
    del project
    for path in (str(service.root), service.python):
        if not manifests.fits_supervisor(path):
            raise Refused(f"supervisord cannot read the path {path!r}", why="it takes a part of it for a comment")
    return [Change(service.root / "deploy" / f"{service.name}.supervisor.conf", manifests.supervisor(service))]


def _supervisor_next(service: Service, project: "Project") -> Sequence[str]:
    del project
    return [
        *([] if service.user else ["choose a user= in the file"]),
        f"sudo cp deploy/{service.name}.supervisor.conf /etc/supervisor/conf.d/",
        "sudo supervisorctl update",
    ]


def _procfile(service: Service, project: "Project") -> Sequence[Change]:
    del project
    file = service.root / "Procfile"
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    line = manifests.procfile_line(service)
    after = before if line in before.splitlines() else manifests.procfile(service, before)
    return [Change(file, after, clean(line))]


def _procfile_next(service: Service, project: "Project") -> Sequence[str]:
    del project
    lines = ["honcho start, or let your platform run it"]
    if service.shutdown_timeout > _HONCHO:
        lines.append(f"honcho kills after {_HONCHO} s, before --shutdown-timeout {service.shutdown_timeout:g} is over")
    return lines


def _docker(service: Service, project: "Project") -> Sequence[Change]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    file = service.root / f"Dockerfile.{service.name}"
    ignored = service.root / ".dockerignore"
    before = ignored.read_text(encoding="utf-8") if ignored.is_file() else ""
    return [
        Change(file, manifests.docker(service, version, _requirement(project))),
        Change(file.with_name(f"{file.name}.dockerignore"), manifests.dockerignore(before)),
    ]


def _docker_next(service: Service, project: "Project") -> Sequence[str]:
    run = f"docker run --init --stop-timeout {service.stop_seconds} --env-file {service.name}.env {service.name}"
    return [
        f"docker build -f Dockerfile.{service.name} -t {service.name} .",
        run,
        *_about_sqlite(project, "mount a volume for its file, or it goes with the container"),
    ]


def _kubernetes(service: Service, project: "Project") -> Sequence[Change]:
    del project
    return [Change(service.root / "deploy" / f"{service.name}.yaml", manifests.kubernetes(service))]


def _kubernetes_next(service: Service, project: "Project") -> Sequence[str]:
    return [
        f"name your image in deploy/{service.name}.yaml",
        f"kubectl create secret generic {service.name} --from-literal=database-url=…",
        f"kubectl apply -f deploy/{service.name}.yaml",
        *_about_sqlite(project, "pods cannot share its file: use PostgreSQL or MariaDB"),
    ]


_MANAGERS: Mapping[str, _Manager] = {
    "systemd": _Manager("sapwood", _systemd, _systemd_next),
    "supervisor": _Manager("sapwood", _supervisor, _supervisor_next),
    "docker": _Manager("worker", _docker, _docker_next, needs_port=True),
    "procfile": _Manager("worker", _procfile, _procfile_next),
    "kubernetes": _Manager("sapwood-worker", _kubernetes, _kubernetes_next, needs_port=True),
}


# --- checks ---------------------------------------------------------------------------------------------------------


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise Misused(
            f'a service cannot be called "{name}"', mend="write small letters, digits and dashes, such as mail-worker"
        )
    return name


def _checked_root(root: Path) -> Path:
    if not str(root).isprintable():
        raise Refused(f"the path of the project cannot be written down: {str(root)!r}", mend="rename its folder")
    return root


def _checked_spec(call: Invocation, spec: str | None, concurrency: int | None) -> str | None:
    """Return the workers to name. A single one is named too, since only then a supervisor looks after it."""
    workers = plan_workers(call, spec=spec, concurrency=concurrency)
    refuse_memory(call, workers)
    if spec is not None or len(workers) > 1 or workers[0].adapter != call.project.default_adapter:
        return spec
    (one,) = workers
    return "1" if one.queues is None or setting(call, "queues") is not None else f"{one.group}:1"


def _refuse_clash(service: Service, changes: Sequence[Change]) -> None:
    for change in changes:
        if not change.file.exists():
            continue
        before = change.file.read_text(encoding="utf-8")
        where = change.file.relative_to(service.root)
        if change.file.name == "Procfile":
            others = map(manifests.procfile_name, before.splitlines())
            if before != change.text and service.name in others:
                raise Refused(
                    f'{where} has a "{service.name}" already',
                    mend="choose another --name, or add --force to replace it",
                )
        elif before != change.text:
            raise Refused(
                f"{where} exists already, and differs", mend="choose another --name, or add --force to write over it"
            )


def _owner(root: Path) -> str | None:
    """Return the user whose project it is, None where that is root or nobody that this machine knows."""
    owner = root.stat().st_uid
    try:
        return pwd.getpwuid(owner).pw_name if owner else None
    except KeyError:
        return None


def _requirement(project: "Project") -> str:
    """Return what pip is told to install Sapwood with the driver of this app."""
    kind = project.adapter().describe().partition(":")[0].partition("+")[0]
    extra = {"postgresql": "[postgresql]", "mysql": "[mysql]", "mariadb": "[mysql]"}.get(kind, "")
    return f"sapwood{extra}>={__version__}"


def _about_sqlite(project: "Project", what: str) -> Sequence[str]:
    return [f"jobs are in SQLite here: {what}"] if project.adapter().describe().startswith("sqlite") else []
