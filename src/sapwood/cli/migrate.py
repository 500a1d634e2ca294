"""``sapwood migrate``: the tables."""

from collections.abc import Sequence
from typing import Any

import click

from sapwood.cli.command import Command, invocation
from sapwood.cli.output import say, tell
from sapwood.cli.problems import ExitCode


@click.command(
    "migrate",
    cls=Command,
    short_help="Create the tables, or bring them up to date.",
    examples=("sapwood migrate", "sapwood migrate --check", "sapwood migrate --sql > sapwood.sql"),
    after="Exit code 4 with --check where steps are missing.",
)
@click.option("--sql", is_flag=True, help="Print the SQL for a fresh database, run nothing.")
@click.option("--check", is_flag=True, help="Say what is missing, change nothing.")
@click.option("--adapter", metavar="NAME", help="Only this one.  [default: all]")
def migrate_command(adapter: str | None, *, sql: bool, check: bool) -> ExitCode:
    """Create the tables, or bring them up to date."""
    if sql and check:
        raise click.UsageError("--sql and --check exclude each other")
    project = invocation().project
    names = [adapter] if adapter is not None else list(project.app.adapters)
    code = ExitCode.DONE
    for name in names:
        store = project.adapter(name)
        if sql:
            _print_sql(store)
        elif check:
            code = max(code, _check(store))
        else:
            steps = store.migrate()
            for step in steps:
                say(f"  {click.style('applied', fg='green')}  {step}")
            say(f"{'up to date' if not steps else 'migrated'}: {store.describe()}")
    return code


def _print_sql(store: Any) -> None:
    # An adapter that keeps no tables has no such verb: the contract leaves it out.
    statements = getattr(store, "migration_sql", None)
    if statements is None:
        tell(f"nothing to migrate: {store.describe()}")
        return
    say(f"-- {store.describe()}")
    say(statements().rstrip())


def _check(store: Any) -> ExitCode:
    pending: Sequence[str] = getattr(store, "pending_migrations", tuple)()
    if not pending:
        say(f"up to date: {store.describe()}")
        return ExitCode.DONE
    say(f"not up to date: {store.describe()} lacks {', '.join(pending)}")
    tell("  fix: sapwood migrate")
    return ExitCode.STORE
