"""The group of commands, and what becomes of an error: a line that helps, and an exit code."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click

from sapwood._version import __version__
from sapwood.cli.command import Group, Invocation, common_options
from sapwood.cli.output import complain, tell
from sapwood.cli.problems import ExitCode, exit_code
from sapwood.errors import SapwoodError
from sapwood.wording import story


class _Entry(NamedTuple):
    module: str
    sentence: str


_SECTIONS: dict[str, dict[str, _Entry]] = {
    "Start here": {
        "setup": _Entry("setup", "Prepare this project for background jobs."),
        "generate": _Entry("generate", "Write a new job, or a service for workers."),
    },
    "Workers": {
        "work": _Entry("work", "Run jobs in this terminal until you stop it."),
        "start": _Entry("start", "Start workers in the background."),
        "stop": _Entry("stop", "Stop the workers in the background."),
        "restart": _Entry("restart", "Replace the workers in the background, one by one."),
        "status": _Entry("status", "Show the workers in the background."),
        "workoff": _Entry("workoff", "Run what is ready, then exit."),
    },
    "Jobs": {
        "enqueue": _Entry("enqueue", "Enqueue one job."),
        "list": _Entry("jobs", "List the jobs that are stored."),
        "show": _Entry("jobs", "Show one job: its tries, and why it is not running."),
        "clear": _Entry("jobs", "Delete jobs."),
    },
    "Maintenance": {
        "migrate": _Entry("migrate", "Create the tables, or bring them up to date."),
    },
}
_ENTRIES = {name: entry for section in _SECTIONS.values() for name, entry in section.items()}
_ALIASES = {"g": "generate", "ls": "list"}


class _Commands(Group):
    """Knows the names of all commands, and loads the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        name = _ALIASES.get(cmd_name, cmd_name)
        entry = _ENTRIES.get(name)
        if entry is None:
            return None
        command = getattr(import_module(f"sapwood.cli.{entry.module}"), f"{name}_command")
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker; a test calls every entry
        return command

    def known_names(self, ctx: click.Context) -> list[str]:
        return [*super().known_names(ctx), *_ALIASES]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("Background jobs in your own database.\n")
        formatter.write_paragraph()
        formatter.write_usage("sapwood", "[OPTIONS] COMMAND [ARGS]...")
        for title, entries in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(10), entry.sentence) for name, entry in entries.items()])
        with formatter.section("Options"):
            formatter.write_dl([record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))])
        with formatter.section("Examples"):
            formatter.write("  sapwood setup\n  sapwood generate job WelcomeEmail user_id:int\n")
            formatter.write("  sapwood enqueue WelcomeEmail user_id=42\n  sapwood work\n")
        formatter.write_paragraph()
        formatter.write_text(
            "Exit codes: 0 done, 1 failed, 2 usage, 3 no app or wrong configuration, 4 database unreachable or not "
            "migrated, 5 not found, 6 refused, 130 interrupted."
        )


@click.group(
    cls=_Commands,
    params=list(common_options()),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Background jobs in your own database."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. No error leaves this function."""
    call = Invocation()
    try:
        returned: Any = commands.main(args, prog_name="sapwood", standalone_mode=False, obj=call)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _usage(call, error)
    except SapwoodError as error:
        complain(error, color=call.color)
        _trace(call, error)
        return exit_code(error)
    except (KeyboardInterrupt, click.Abort):
        tell("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout has had enough; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 - whatever it is, the user is owed a line, not a traceback
        return _unexpected(call, error)
    return returned if isinstance(returned, int) else ExitCode.DONE


def _usage(call: Invocation, error: click.ClickException) -> int:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "sapwood"
    complain(SapwoodError(message[:1].lower() + message[1:].rstrip("."), mend=f"{path} --help"), color=call.color)
    return ExitCode.USAGE


def _unexpected(call: Invocation, error: Exception) -> int:
    told = _trace(call, error)
    complain(
        SapwoodError(
            f"unexpected {type(error).__name__}: {error}",
            mend="" if told else "add -v, or set SAPWOOD_TRACEBACK=1, to see where it came from",
        ),
        color=call.color,
    )
    return ExitCode.FAILED


def _trace(call: Invocation, error: BaseException) -> bool:
    wanted = bool(call.verbose or os.environ.get("SAPWOOD_TRACEBACK"))
    if wanted:
        tell(story(error, ""))
    return wanted
