"""``sapwood enqueue``: one job, from the shell."""

import inspect
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_type_hints

import click

from sapwood import registry
from sapwood.cli import values
from sapwood.cli.command import Command, invocation
from sapwood.cli.jobs import as_json
from sapwood.cli.output import clean, document, instant, say, short_name, state_name, until
from sapwood.cli.problems import Misused
from sapwood.cli.values import job_arguments, length
from sapwood.cli.why import living_workers, reason
from sapwood.errors import InvalidArguments, UnstorableArguments
from sapwood.handle import JobHandle
from sapwood.job import Configured, Job
from sapwood.options import Options
from sapwood.record import JobState


@click.command(
    "enqueue",
    cls=Command,
    has_json=True,
    short_help="Enqueue one job.",
    examples=(
        "sapwood enqueue WelcomeEmail user_id=42",
        "sapwood enqueue WelcomeEmail '{\"user_id\": 42}' --in 5m",
        "sapwood enqueue jobs.mail:WelcomeEmail '[42]' --queue bulk --priority 90",
        "sapwood enqueue Report --at 2030-12-31T12:00Z",
    ),
    after="CLASS is the name of the class where only one is called so, or MODULE:NAME. A VALUE is read as the "
    "annotation of its argument says. Exit code 5 where there is no such class.",
)
@click.argument("class_name", metavar="CLASS")
@click.argument("words", metavar="[JSON|KEY=VALUE]...", nargs=-1)
@click.option("--queue", metavar="NAME", help="The queue, if not that of the class.")
@click.option("--priority", type=int, metavar="N", help="1 is worked first, 100 last.")
@click.option("--in", "wait", type=length, metavar="TIME", help="Not before then: 300 (seconds), 5m, 2h, 1d.")
@click.option("--at", "moment", type=values.moment, metavar="ISO", help="Not before that: 2030-12-31T12:00Z.")
def enqueue_command(
    class_name: str,
    words: tuple[str, ...],
    queue: str | None,
    priority: int | None,
    wait: float | None,
    moment: datetime | None,
) -> None:
    """Enqueue one job."""
    if wait is not None and moment is not None:
        raise click.UsageError("--in and --at exclude each other")
    call = invocation()
    project = call.project
    if queue is not None:
        project.check_queue(queue)
    name = project.find_class(class_name)
    job_class = project.classes()[name]
    positional, named = _typed(job_class, *job_arguments(words, _annotations(job_class)))
    options: dict[str, Any] = {"queue": queue, "priority": priority, "wait": wait, "wait_until": moment}
    chosen = Options(**{key: value for key, value in options.items() if value is not None})
    handle: JobHandle[Any] = Configured[Any, Any](job_class, chosen).perform_later(*positional, **named)
    store = job_class.serving_app().adapter(job_class.adapter)
    record = store.get(handle.id)
    if record is None:
        say(f"#{handle.id} {short_name(name)}  done already")
        return
    if call.json:
        document(as_json(record))
        return
    when = f", {until(record.run_at)} ({instant(record.run_at)})" if record.run_at > datetime.now(UTC) else ""
    say(f"#{record.id} {short_name(name)}  {state_name(record.state)} in queue {clean(record.queue)}{when}")
    if store.is_volatile:
        call.note("note: this app keeps jobs in memory: the job is gone when this command ends")
        return
    why = reason(record, living_workers(store), registry.names())
    if why is not None and why.mend and record.state is JobState.READY:
        call.note(f"{why.why} – start one: {why.mend}")


def _annotations(job_class: type[Job]) -> dict[str, Any]:
    try:
        return get_type_hints(job_class.perform)  # type: ignore[attr-defined]
    except (NameError, TypeError, AttributeError):
        # An annotation that only a type checker can resolve: the words are then read as JSON where they are JSON.
        return {}


def _typed(job_class: type[Job], positional: Sequence[Any], named: dict[str, Any]) -> tuple[Sequence[Any], Any]:
    """Return the arguments as the types that ``perform`` declares.

    Names that do not fit are left for enqueuing to refuse, which says better what is wrong with them.
    """
    names = [name for name in inspect.signature(job_class.perform).parameters if name != "self"]  # type: ignore[attr-defined]
    given = dict(zip(names, positional, strict=False)) | named
    if len(given) < len(positional) + len(named):
        return positional, named
    try:
        return job_class.codec().decode(json.dumps(given))
    except UnstorableArguments as error:
        name = error.what.partition(":")[0].removeprefix("args.")
        raise Misused(f"{name} does not fit", why=error.why, mend="pass what is declared") from error
    except InvalidArguments:
        return positional, named
