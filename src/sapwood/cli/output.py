"""How the commands speak: data on stdout, talk on stderr, and nothing that a terminal could take for an order."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Any, TextIO

import click

from sapwood.errors import SapwoodError
from sapwood.wording import escaped, masked

_PLAIN = str.maketrans(
    {"▶": ">", "✓": "+", "✕": "x", "○": "o", "◆": "*", "·": "-", "–": "-", "—": "-", "…": "...", "→": "->", "×": "x"}
)
_COLOUR = re.compile(r"(\x1b\[[\d;]*m|[\n\t])")
_COLOURS = {
    "ready": "cyan",
    "scheduled": "blue",
    "running": "yellow",
    "blocked": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "bright_black",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def say(text: str = "") -> None:
    """Write a line of data to stdout."""
    click.echo(fitting(text, sys.stdout))


def tell(text: str = "", *, color: bool | None = None) -> None:
    """Write a line of talk to stderr."""
    click.echo(fitting(masked(text), sys.stderr), err=True, color=color)


def document(value: Any) -> None:
    """Write ``value`` to stdout as one JSON document."""
    say(json.dumps(value, indent=2))


def complain(error: SapwoodError, *, color: bool | None = None) -> None:
    """Say on stderr what went wrong, why, and how to mend it."""
    tell(f"{click.style('error:', fg='red', bold=True)} {clean(error.what, lines=True)}", color=color)
    for label, text in (("why:", error.why), ("fix:", error.mend)):
        if text:
            lines = clean(text, lines=True).splitlines()
            tell(f"  {click.style(label, bold=True)} " + "\n       ".join(lines), color=color)


def wants_colour(choice: str, environ: Mapping[str, str]) -> bool | None:
    """Return True or False where the caller or the environment decides, None where the terminal does."""
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    if environ.get("TERM") == "dumb" or environ.get("CI"):
        return False
    return None


def fitting(text: str, stream: TextIO) -> str:
    """Return ``text`` as ``stream`` can print it: plain signs for those that its encoding lacks.

    Of all that could steer a terminal only line ends and colours are let through, whoever forgot to clean what.
    """
    text = "".join(part if place % 2 else escaped(part) for place, part in enumerate(_COLOUR.split(text)))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    return text


def clean(text: str, *, lines: bool = False) -> str:
    r"""Return ``text`` with control characters written out as ``\x1b``; line ends and tabs too, unless ``lines``."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n")) if lines else escaped(text)


def shortened(text: str, width: int) -> str:
    """Return ``text`` cleaned, in one line, cut to ``width`` with an ellipsis."""
    text = clean(text[: width * 4])
    return text if len(text) <= width else text[: width - 1] + "…"


def short_name(job: str) -> str:
    """Return the class in a stored name: ``WelcomeEmail`` for ``jobs.welcome_email:WelcomeEmail``."""
    return clean(job.rpartition(":")[2] or job)


def state_name(state: str) -> str:
    """Return a state in its colour."""
    return click.style(state, fg=_COLOURS.get(state))


def number(count: int, noun: str = "") -> str:
    """Return ``1 job``, ``2 jobs``, ``1,204 jobs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}" if noun else f"{count:,}"


def span(seconds: float) -> str:
    """Return a length of time for people: ``8ms``, ``1.4s``, ``4m``, ``2h 5m``, ``3d 4h``."""
    seconds = max(seconds, 0)
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 10:  # noqa: PLR2004 - below that a tenth tells something
        return f"{seconds:.1f}s"
    for unit, size, smaller, part in (("d", _DAY, "h", _HOUR), ("h", _HOUR, "m", _MINUTE)):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole}{unit} {rest // part}{smaller}" if rest >= part else f"{whole}{unit}"
    return f"{int(seconds) // _MINUTE}m" if seconds >= _MINUTE else f"{int(seconds)}s"


def until(moment: datetime, now: datetime | None = None) -> str:
    """Return how far off ``moment`` is: ``in 4m``, ``now``, ``12s ago``."""
    seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    if abs(seconds) < 1:
        return "now"
    whole = round(abs(seconds)) if abs(seconds) < _MINUTE else round(abs(seconds) / _MINUTE) * _MINUTE
    far = f"{whole}s" if whole < _MINUTE else span(whole)
    return f"in {far}" if seconds > 0 else f"{far} ago"


def instant(moment: datetime) -> str:
    """Return a moment for people, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write ``rows`` to stdout in columns, without those that are empty.

    The first column is never cut; the others are where a terminal is narrow.
    """
    from rich.console import Console  # noqa: PLC0415 - `sapwood --help` must not load rich
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    filled = [place for place in range(len(header)) if any(row[place] for row in rows)]
    for place in filled:
        widest = max((len(click.unstyle(row[place])) for row in rows), default=0)
        grid.add_column(header[place], no_wrap=True, overflow="ellipsis", min_width=widest if place == 0 else None)
    for row in rows:
        grid.add_row(*(Text.from_ansi(row[place]) for place in filled))
    width = _terminal_width() if sys.stdout.isatty() else 10_000
    paper = StringIO()
    Console(file=paper, width=width, force_terminal=True, color_system="standard", legacy_windows=False).print(grid)
    for line in paper.getvalue().splitlines():
        say(re.sub(r" +((?:\x1b\[[\d;]*m)*)$", r"\1", line))


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
