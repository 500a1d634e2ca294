"""``sapwood migrate``: the tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from sapwood.adapters.base import BaseAdapter
from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.output import document, say, tell
from sapwood.cli.problems import ExitCode


@click.command(
    "migrate",
    cls=Command,
    has_json=True,
    short_help="Create the tables, or bring them up to date.",
    examples=(
        "sapwood migrate",
        "sapwood migrate --check",
        "sapwood migrate --status --json",
        "sapwood migrate --sql > sapwood.sql",
    ),
    after="Exit code 4 with --check and --status where steps are missing, or the tables are of a later release.",
)
@click.option("--sql", is_flag=True, help="Print the SQL for a fresh database, run nothing.")
@click.option("--check", is_flag=True, help="Say what is missing, change nothing.")
@click.option("--status", is_flag=True, help="Tell the versions and every step, change nothing.")
@click.option("--adapter", metavar="NAME", help="Only this one.  [default: all]")
def migrate_command(adapter: str | None, *, sql: bool, check: bool, status: bool) -> ExitCode:
    """Create the tables, or bring them up to date."""
    if sql + check + status > 1:
        raise click.UsageError("--sql, --check and --status exclude each other")
    call = invocation()
    if call.json and not status:
        raise click.UsageError("migrate has no --json without --status")
    names = [adapter] if adapter is not None else list(call.project.app.adapters)
    stores = {name: call.project.adapter(name) for name in names}
    if status:
        return _tell_status(call, stores)
    code = ExitCode.DONE
    for store in stores.values():
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


def _tell_status(call: Invocation, stores: Mapping[str, BaseAdapter]) -> ExitCode:
    # As with the other flags: an adapter that keeps no tables has no such verb.
    found = {name: getattr(store, "migration_status", lambda: None)() for name, store in stores.items()}
    if call.json:
        document({"items": [_status_as_json(name, stores[name], status) for name, status in found.items()]})
    else:
        for name, status in found.items():
            _print_status(name, stores[name], status)
    behind = any(status is not None and (status.pending or status.is_too_new) for status in found.values())
    return ExitCode.STORE if behind else ExitCode.DONE


def _status_as_json(name: str, store: BaseAdapter, status: Any) -> dict[str, Any]:
    told = ("version", "release_version", "oldest_reader", "taken", "pending")
    return {"adapter": name, "store": store.describe(), **{key: getattr(status, key, None) for key in told}}


def _print_status(name: str, store: BaseAdapter, status: Any) -> None:
    say(f"{name}: {store.describe()}")
    if status is None:
        say("  keeps no tables")
        return
    say(f"  schema   {status.version} here, {status.release_version} in this release")
    if status.oldest_reader is not None:
        say(f"  readers  releases that know schema {status.oldest_reader} or a later one")
    for step in status.taken:
        say(f"  {click.style('taken', fg='green')}    {step}")
    for step in status.pending:
        say(f"  {click.style('pending', fg='yellow')}  {step}")
    if status.is_too_new:
        tell("  fix: upgrade sapwood on this machine")
    elif status.pending:
        tell("  fix: sapwood migrate")
