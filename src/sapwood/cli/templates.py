"""The code that ``sapwood generate`` writes."""

from collections.abc import Sequence

from msgspec import Struct

from sapwood.cli.naming import Argument, JobName

CONFTEST = '"""Its place lets the tests import the project: pytest puts the folder of this file on the path."""\n'


class Options(Struct, frozen=True):
    """What was asked for beside a name and arguments."""

    queue: str | None
    is_async: bool
    as_function: bool
    max_attempts: int | None

    def keywords(self) -> str:
        """Return the options as keywords of a class or a decorator."""
        said = {"queue": self.queue and f'"{self.queue}"', "max_attempts": self.max_attempts}
        return ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)


def job_source(name: JobName, takes: Sequence[Argument], options: Options) -> str:
    """Return the module with the job in it."""
    signature = ", ".join(_parameter(argument) for argument in takes)
    asynchronous = "async " if options.is_async else ""
    sentence = " ".join(name.snake.split("_")).capitalize()
    log = f'"{name.camel}{"".join(f" {argument.name}=%r" for argument in takes)}"'
    log = ", ".join([log, *(argument.name for argument in takes)])
    if options.as_function:
        decorator = f"@job({options.keywords()})" if options.keywords() else "@job"
        body = (
            f"{decorator}\n{asynchronous}def {name.snake}({signature}) -> None:\n"
            f'    """{sentence}."""\n    logger.info({log})\n'
        )
        imports = _imports({"import logging"} | _needed(takes, in_test=False), "from sapwood import job")
        return f'"""{sentence}."""\n\n{imports}\n\nlogger = logging.getLogger(__name__)\n\n\n{body}'
    bases = ", ".join(filter(None, ("Job", options.keywords())))
    parameters = ", ".join(filter(None, ("self", signature)))
    body = (
        f'class {name.camel}({bases}):\n    """{sentence}."""\n\n'
        f"    {asynchronous}def perform({parameters}) -> None:\n        self.logger.info({log})\n"
    )
    return f'"""{sentence}."""\n\n{_imports(_needed(takes, in_test=False), "from sapwood import Job")}\n\n\n{body}'


def test_source(name: JobName, takes: Sequence[Argument], options: Options, module: str) -> str:
    """Return a test that performs the job once, and passes."""
    called = name.snake if options.as_function else name.camel
    given = ", ".join(argument.example for argument in takes)
    performed = f"{called}.perform_now({given})"
    needed = _needed(takes, in_test=True)
    if options.is_async:
        performed = f"asyncio.run({performed})"
        needed |= {"import asyncio"}
    standard = _imports(needed, f"from {module} import {called}")
    return (
        f"{standard}\n\n\n"
        f"def test_{name.snake}_performs() -> None:\n"
        f"    # perform_now checks, stores and reads back the arguments as a worker would.\n"
        f"    {performed}\n"
    )


def _parameter(argument: Argument) -> str:
    written = f"{argument.name}: {argument.annotation}"
    return written if argument.default is None else f"{written} = {argument.default}"


def _needed(takes: Sequence[Argument], *, in_test: bool) -> set[str]:
    needed = {line for argument in takes for line in argument.imports}
    # Only an example makes an aware datetime; an annotation does without UTC.
    return needed if in_test else {line.replace("UTC, datetime", "datetime") for line in needed}


def _imports(standard: set[str], own: str) -> str:
    merged = standard
    pair = {"from datetime import UTC, datetime", "from datetime import datetime"} & standard
    if pair and "from datetime import date" in standard:
        names = "UTC, date, datetime" if "UTC" in "".join(pair) else "date, datetime"
        merged = standard - pair - {"from datetime import date"} | {f"from datetime import {names}"}
    first = "\n".join(sorted(merged, key=lambda line: (line.startswith("from"), line)))
    return f"{first}\n\n{own}" if first else own
