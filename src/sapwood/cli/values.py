"""Values on the command line: states, lists, lengths of time, moments, and the arguments of a job."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from sapwood.cli.problems import Misused
from sapwood.record import JobState

_HIGHEST_PORT = 65_535
identity = click.IntRange(-(2**63), 2**63 - 1)
"""The id of a job, as far as a database has room for it."""

_LONGEST = 100 * 366 * 86_400.0

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def listed(value: str) -> tuple[str, ...]:
    """Return one or more values that stand in one word, with commas."""
    parts = tuple(part.strip() for part in value.split(","))
    if not all(parts):
        raise click.BadParameter(f'"{value}" has an empty place')
    return parts


def states(value: str) -> tuple[str, ...]:
    """Return the states that are named."""
    return tuple(_state(part.lower()) for part in listed(value))


def length(value: str) -> float:
    """Return the seconds in a length of time: 300, 5m, 1.5h, 1h30m."""
    text = value.strip().lower()
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?\s*[smhdw]?\s*)+", text):
        raise click.BadParameter(f'"{value}" is no length of time – write 300 (seconds), 5m, 2h or 1d')
    seconds = sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text))
    if seconds > _LONGEST:
        raise click.BadParameter(f'"{value}" is too long – a hundred years is the most')
    return seconds


def address(value: str) -> tuple[str, int]:
    """Return the host and port in ``8080`` or ``0.0.0.0:8080``; without a host it is this machine alone."""
    host, colon, port = value.rpartition(":")
    if not port.isdecimal() or int(port[:6]) > _HIGHEST_PORT or (colon and not host):
        raise click.BadParameter(f'"{value}" is no port – write 8080, or 0.0.0.0:8080 for callers from elsewhere')
    return host.strip("[]") or "127.0.0.1", int(port)


def moment(value: str) -> datetime:
    """Return the moment that ISO 8601 names, in the time zone of this machine where it names none."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f'"{value}" is no moment – write one such as 2030-12-31T12:00Z') from None
    try:
        return (found.astimezone() if found.tzinfo is None else found).astimezone(UTC)
    except (OverflowError, ValueError):
        raise click.BadParameter(f'"{value}" is beyond the calendar') from None


def _state(name: str) -> str:
    names = [state.value for state in JobState]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"the states are {', '.join(names)}"
        raise click.BadParameter(f'there is no state "{name}" – {hint}')
    return name


def flat(groups: Sequence[tuple[str, ...]] | None) -> list[str] | None:
    """Return the values of an option that was given several times, None where it was not."""
    return [value for group in groups for value in group] if groups else None


def job_arguments(words: Sequence[str], annotations: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and named arguments that ``JSON`` or ``KEY=VALUE …`` mean.

    A value is read as its annotation says: ``str`` as it stands, everything else as JSON where it is JSON.

    Raises:
        Misused: it is neither.
    """
    if len(words) == 1 and words[0].lstrip()[:1] in {"{", "["}:
        given = _parsed(words[0])
        return ([], given) if isinstance(given, dict) else (given, {})
    named: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise Misused(
                f'"{word}" is neither KEY=VALUE nor a JSON object',
                mend="write user_id=42, or '{\"user_id\": 42}', or '[42]' for arguments without names",
            )
        if key in named:
            raise Misused(f'"{key}" is given twice')
        named[key] = _value(key, text, annotations.get(key, Any))
    return [], named


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Misused(
            f"the arguments are no JSON: {error}", mend="mind the quotes of the shell: '{\"user_id\": 42}'"
        ) from error


def _value(key: str, text: str, annotation: Any) -> Any:
    if annotation is str:
        return text
    if annotation is bool:
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())
        if truth is None:
            raise Misused(f'{key} must be true or false, not "{text}"')
        return truth
    for number in (int, float):
        if annotation is number:
            try:
                return number(text)
            except ValueError:
                raise Misused(f'{key} must be {_AS_NUMBER[number]}, not "{text}"') from None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


_AS_NUMBER: Mapping[type, str] = {int: "a whole number", float: "a number"}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
