"""``sapwood generate job``: a job that runs and a test that passes. ``generate service`` has a module of its own."""

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from sapwood.cli.command import Command, Group, invocation
from sapwood.cli.files import Change, apply
from sapwood.cli.naming import Argument, JobName, arguments, job_name
from sapwood.cli.output import say, tell
from sapwood.cli.problems import Misused, Refused
from sapwood.cli.service import service_command
from sapwood.cli.templates import CONFTEST, Options, job_source, test_source

if TYPE_CHECKING:
    from sapwood.cli.discovery import Project


class _Target(Struct, frozen=True):
    """Where the code goes."""

    module: str
    file: Path
    remark: str = ""
    """What is left for the user to do."""


@click.group(
    "generate",
    cls=Group,
    short_help="Write a new job, or a service for workers.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.pass_context
def generate_command(ctx: click.Context) -> None:
    """Write code to begin with, or a service for workers."""
    if ctx.invoked_subcommand is None:
        say(ctx.get_help())


generate_command.add_command(service_command)


@generate_command.command(
    "job",
    cls=Command,
    short_help="Write a new job and its test.",
    examples=(
        "sapwood generate job WelcomeEmail user_id:int",
        "sapwood g job welcome-email user_id:int locale:str=en --queue email",
        "sapwood generate job Fetch url --async --max-attempts 5",
        "sapwood generate job Report 'ids:list[int]' 'since:date | None=None'",
    ),
    after="Types: int, str (where none is given), float, bool, bytes, datetime, date, UUID, Decimal; list[int] and the "
    "like; … | None. NAME may be WelcomeEmail, welcome-email, welcome_email or WelcomeEmailJob: all mean the same.",
)
@click.argument("name")
@click.argument("specifications", metavar="[ARG:TYPE[=DEFAULT]]...", nargs=-1)
@click.option("--queue", metavar="NAME", help="Its queue.  [default: default]")
@click.option("--async", "is_async", is_flag=True, help="Make it an async job.")
@click.option("--function/--class", "as_function", help="A decorated function, or a class.  [default: class]")
@click.option("--max-attempts", type=click.IntRange(min=1), metavar="N", help="Tries in all.  [default: 24]")
@click.option("--no-test", is_flag=True, help="Write no test.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, write nothing.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
def job_command(  # noqa: PLR0913 - one parameter per option
    name: str,
    specifications: tuple[str, ...],
    queue: str | None,
    max_attempts: int | None,
    *,
    is_async: bool,
    as_function: bool,
    no_test: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Write a new job and its test."""
    called, takes = job_name(name), arguments(specifications)
    project = invocation().project
    if queue is not None:
        project.check_queue(queue)
    options = Options(queue, is_async, as_function, max_attempts)
    target = _target(project, called)
    changes = [Change(target.file, job_source(called, takes, options))]
    if not no_test:
        test = project.root / "tests" / f"test_{called.snake}.py"
        changes.append(Change(test, test_source(called, takes, options, target.module)))
    if not force:
        _refuse_clash(project, called, target, changes)
    if not no_test and not _tests_can_import(project.root):
        changes.append(Change(project.root / "conftest.py", CONFTEST, "lets the tests import the project"))
    apply(changes, project.root, dry_run=dry_run)
    if dry_run:
        tell("Nothing was written: --dry-run.")
        return
    _next_steps(called, takes, options, target, tested=not no_test)


def _target(project: "Project", name: JobName) -> _Target:
    """Return the package of jobs; where there is none but a jobs.py, a module beside that, never a package over it."""
    import sys  # noqa: PLC0415 - only here

    loaded = [sys.modules[module] for module in project.app.imports if module in sys.modules]
    for module in (*loaded, project.module):
        if hasattr(module, "__path__"):
            folder = Path(next(iter(module.__path__)))
            if hasattr(module, name.snake) and f"{module.__name__}.{name.snake}" not in sys.modules:
                raise Misused(
                    f'"{name.snake}" cannot be a module of {module.__name__}',
                    why=f"{module.__name__}.{name.snake} is something else already, and would be hidden",
                    mend="choose another name",
                )
            missing = "" if module in loaded else f'add imports=["{module.__name__}"] to the Sapwood(…) in it'
            return _Target(f"{module.__name__}.{name.snake}", folder / f"{name.snake}.py", missing)
    beside = f"{project.module.__name__}_{name.snake}"
    file = Path(project.module.__file__ or "jobs.py")
    known = beside in project.app.imports
    return _Target(
        beside,
        file.with_name(f"{file.stem}_{name.snake}.py"),
        "" if known else f'add "{beside}" to imports=[…] of the Sapwood(…) in {file.name}',
    )


def _refuse_clash(project: "Project", name: JobName, target: _Target, changes: Sequence[Change]) -> None:
    for stored in project.classes():
        if stored.rpartition(":")[2] in {name.camel, name.snake}:
            raise Refused(f"there is a job {name.camel} already: {stored}", mend="choose another name")
    there = [change.file for change in changes if change.file.exists()]
    if target.file.with_suffix("").is_dir():
        there.append(target.file.with_suffix(""))
    if there:
        raise Refused(
            f"{', '.join(str(file.relative_to(project.root)) for file in there)} exists already",
            mend="choose another name, or add --force to write over it",
        )


def _tests_can_import(root: Path) -> bool:
    if (root / "conftest.py").exists():
        return True
    try:
        document = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return False
    return "pythonpath" in document.get("tool", {}).get("pytest", {}).get("ini_options", {})


def _next_steps(name: JobName, takes: Sequence[Argument], options: Options, target: _Target, *, tested: bool) -> None:
    called = name.snake if options.as_function else name.camel
    given = ", ".join(argument.example for argument in takes if argument.default is None)
    say()
    if target.remark:
        say(f"To do:       {target.remark}")
    say(f"Enqueue it:  from {target.module} import {called}")
    say(f"             {called}.perform_later({given})")
    words = [f"{argument.name}={argument.said}" for argument in takes if argument.default is None]
    say(f"or:          {shlex.join(['sapwood', 'enqueue', called, *words])}")
    if tested:
        say(f"Test it:     pytest tests/test_{name.snake}.py")
