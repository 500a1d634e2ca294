"""Writing files for the user: say what is written, keep what is there, and with ``--dry-run`` write nothing."""

from pathlib import Path

import click
from msgspec import Struct

from sapwood.cli.output import say


class Change(Struct, frozen=True):
    """A file as it is to be."""

    file: Path
    text: str
    remark: str = ""


def apply(changes: list[Change], root: Path, *, dry_run: bool) -> int:
    """Write what differs from what is there, and say so line by line; return how many files that were."""
    written = 0
    for change in changes:
        before = _text(change.file)
        word = "create" if before is None else "keep" if before == change.text else "change"
        name = change.file.relative_to(root) if change.file.is_relative_to(root) else change.file
        colour = {"create": "green", "change": "yellow"}.get(word)
        remark = f"  {change.remark}" if change.remark and word != "keep" else ""
        say(f"  {click.style(word.ljust(6), fg=colour)}  {str(name).ljust(28)}{remark}".rstrip())
        if word == "keep":
            continue
        written += 1
        if not dry_run:
            change.file.parent.mkdir(parents=True, exist_ok=True)
            change.file.write_text(change.text, encoding="utf-8", newline="")
    return written


def _text(file: Path) -> str | None:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
