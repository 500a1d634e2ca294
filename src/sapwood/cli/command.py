"""What all commands share: the options that each of them takes, and the project that it is called in."""

import difflib
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sapwood import config
from sapwood.cli.output import tell, wants_colour
from sapwood.cli.problems import Refused

if TYPE_CHECKING:
    from sapwood.cli.discovery import Project


class Invocation:
    """One call of the command line: what was said in its common options, and what follows from them."""

    app: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_input: bool = False

    def __init__(self) -> None:
        self.color = wants_colour("auto", os.environ)

    @cached_property
    def settings(self) -> config.Settings:
        """The settings that hold in the current directory."""
        return config.read(Path.cwd())

    @cached_property
    def project(self) -> "Project":
        """The app, found and loaded."""
        from sapwood.cli.discovery import find  # noqa: PLC0415 - it loads the app's modules; help does not need them

        project = find(self.settings, self.app)
        project.load()
        project.app.reference = project.name
        return project

    def note(self, text: str) -> None:
        """Say something on stderr that --quiet leaves out."""
        if not self.quiet:
            tell(text)

    def confirm(self, question: str) -> None:
        """Go on only when the caller says yes.

        Raises:
            Refused: the answer was no, or there is nobody to ask.
        """
        if self.no_input or not sys.stdin.isatty():
            raise Refused(
                "nothing was done: this needs a confirmation",
                why="--no-input was given" if self.no_input else "there is no terminal to ask on",
                mend="add --yes to do it without asking, or --dry-run to see what it would do",
            )
        try:
            answer = click.confirm(question, default=False, err=True)
        except click.Abort:
            answer = False
        if not answer:
            raise Refused("nothing was done")


def invocation() -> Invocation:
    """Return the call that is under way."""
    return click.get_current_context().find_root().ensure_object(Invocation)


class Group(click.Group):
    """A group that answers a wrong name with the one that was meant, and no name with its help."""

    def known_names(self, ctx: click.Context) -> list[str]:
        """Return the names that may be meant, aliases included."""
        return self.list_commands(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, self.known_names(ctx), n=1)
            hint = f' – did you mean "{close[0]}"?' if close else ""
            raise click.UsageError(f'no command "{name}"{hint}', ctx)
        return super().resolve_command(ctx, args)


class Command(click.Command):
    """A command with the common options, and with examples in its help."""

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), has_json: bool = False, after: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.has_json = has_json
        self.after = after
        own = {option.name for option in self.params}
        shared = common_options(has_json=has_json)
        self.common = [option for option in shared if option.name not in own]
        self.params.extend(self.common)
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.context_settings.setdefault("max_content_width", 80)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where it cannot give JSON, say so rather than give something else."""
        if invocation().json and not self.has_json:
            raise click.UsageError(f"{self.name} has no --json", ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first, the common ones under a heading of their own."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = {option: option.get_help_record(ctx) for option in options}
        own = [record for param, record in records.items() if record and param not in self.common]
        common = [record for param, record in records.items() if record and param in self.common]
        for title, rows in (("Options", own), ("Options of every command", common)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and what there is to say after them."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        if self.after:
            formatter.write_paragraph()
            formatter.write_text(self.after)


def common_options(*, has_json: bool = True) -> list[click.Option]:
    """Return the options that stand before or after the name of any command."""
    remembered: dict[str, Any] = {"expose_value": False, "callback": _remember}
    options = [
        click.Option(["-a", "--app"], metavar="MODULE:ATTR", help="The app.  [env: SAPWOOD_APP]", **remembered),
        click.Option(
            ["-C", "--directory"],
            metavar="DIR",
            is_eager=True,
            expose_value=False,
            callback=_change_directory,
            help="Work in this directory.",
        ),
        click.Option(["-q", "--quiet"], is_flag=True, help="Say only what was asked for.", **remembered),
        click.Option(["-v", "--verbose"], count=True, help="Show tracebacks.  [env: SAPWOOD_TRACEBACK]", **remembered),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            is_eager=True,
            expose_value=False,
            callback=_choose_colour,
            help="Colours.  [env: NO_COLOR, FORCE_COLOR]",
        ),
        click.Option(["--no-input"], is_flag=True, help="Never ask; refuse instead.", **remembered),
    ]
    if has_json:
        options.append(click.Option(["--json"], is_flag=True, help="Data as one JSON document.", **remembered))
    return options


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name:
        setattr(ctx.find_root().ensure_object(Invocation), param.name, value)


def _change_directory(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        os.chdir(value)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value}: {getattr(error, 'strerror', error)}", ctx, param) from error


def _choose_colour(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    del param
    call = ctx.find_root().ensure_object(Invocation)
    if value is not None:
        call.color = wants_colour(value, os.environ)
    ctx.color = ctx.find_root().color = call.color
