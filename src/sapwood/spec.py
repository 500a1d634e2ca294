"""How many workers serve which queues, in one word: ``4``, ``default:2,email:1``, ``default+email:2``."""

import difflib
from collections.abc import Sequence

from msgspec import Struct

from sapwood.errors import InvalidOptions

ALL = "all"
"""Stands for all queues."""

MOST_WORKERS = 1000


class InvalidSpec(InvalidOptions):
    """A specification of workers that cannot be read."""


class Share(Struct, frozen=True):
    """Workers that serve the same queues."""

    queues: tuple[str, ...] | None
    """None: all of them."""

    count: int

    @property
    def label(self) -> str:
        """What they are called: their queues, or ``all``."""
        return ALL if self.queues is None else "+".join(self.queues)


def parse(text: str, *, declared: Sequence[str] | None = None) -> tuple[Share, ...]:
    """Return what a specification means.

    A number alone is so many workers for all queues. Otherwise each part between commas names queues, joined by ``+``
    where one worker serves several by priority, and after a colon how many workers; without one it is one.

    Args:
        text: the specification.
        declared: the queues there are, None for any.

    Raises:
        InvalidSpec: it cannot be read; the message points at the column.
    """
    word = text.strip()
    if word.isdecimal():
        return (Share(None, _count(word, text, text.index(word))),)
    shares: list[Share] = []
    column = 0
    for part in text.split(","):
        share = _share(part, text, column, declared)
        if share.label in {other.label for other in shares}:
            raise _invalid(f'"{share.label}" is named twice', text, column, "write its workers as one number")
        shares.append(share)
        column += len(part) + 1
    return tuple(shares)


def _share(part: str, text: str, column: int, declared: Sequence[str] | None) -> Share:
    names, colon, number = part.rpartition(":")
    if not colon:
        names, number = part, "1"
    if not names.strip():
        raise _invalid("a queue is missing", text, column, f"write {text.strip() or '4'} as QUEUE:NUMBER, or a number")
    count = _count(number, text, column + len(names) + len(colon))
    queues = []
    for name in names.split("+"):
        queue = name.strip()
        if not queue:
            raise _invalid("a queue is missing", text, column, "join queues like default+email")
        if queue != ALL and declared is not None and queue not in declared:
            close = difflib.get_close_matches(queue, declared, n=1)
            mend = f'did you mean "{close[0]}"?' if close else f"the app has {', '.join(declared)}"
            raise _invalid(f'queue "{queue}" is not declared', text, column, mend)
        queues.append(queue)
        column += len(name) + 1
    if ALL in queues:
        return Share(None, count)
    return Share(tuple(dict.fromkeys(queues)), count)


def _count(number: str, text: str, column: int) -> int:
    digits = number.strip()
    if not digits.isdecimal() or not digits.isascii():
        said = f'"{digits}" is not a number' if digits else "a number is missing"
        raise _invalid(said, text, column, "write how many workers: default:2")
    if not 1 <= int(digits[:9]) <= MOST_WORKERS:
        raise _invalid(f"{digits} workers are not possible", text, column, f"write a number from 1 to {MOST_WORKERS}")
    return int(digits)


def _invalid(what: str, text: str, column: int, mend: str) -> InvalidSpec:
    skipped = len(text[column:]) - len(text[column:].lstrip())
    at = column + skipped
    return InvalidSpec(f"{what} (column {at + 1})", why=f"{text}\n{' ' * at}^", mend=mend)
