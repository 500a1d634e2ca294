"""The first rows of several ordered reads, for a database that cannot merge them a row at a time."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain
from math import ceil
from typing import Any, NamedTuple

from sqlalchemy import Connection

Key = tuple[Any, ...]


class Read(NamedTuple):
    """One ordered read, without what it selects, its order and its limit."""

    source: str
    """From where, by which index."""

    condition: str
    parameters: Sequence[Any]


class Merge:
    """Reads on, in rounds, where the next rows may come from, and hands out ids in order.

    Each round is one statement: a limited read, in the order of its index, of each list whose rows so far all stand
    before the last one that is wanted. What is read stays below three times what is wanted and one row per list, unless
    the lists take turns in the worst of ways.

    Args:
        connection: the transaction.
        reads: what is merged.
        order: the names of the columns that each is ordered by, last the id.
    """

    def __init__(self, connection: Connection, reads: Sequence[Read], order: Sequence[str]) -> None:
        self._connection = connection
        self._order = order
        self._lists = [_List(read) for read in reads]
        self._known: list[Key] = []

    def read(self, count: int) -> Sequence[int]:
        """Return the next ids; fewer than ``count`` only where there are no more."""
        self._fill(count)
        taken, self._known = self._known[:count], self._known[count:]
        return [key[-1] for key in taken]

    def _fill(self, count: int) -> None:
        budget = 3 * count + len(self._lists)
        while True:
            reading, chunk = self._next(count, budget)
            if not reading:
                return
            budget -= self._read(reading, chunk)

    def _next(self, count: int, budget: int) -> tuple[Sequence["_List"], int]:
        """Return the lists to read on, and how many rows of each."""
        known = self._known
        bar = known[count - 1] if len(known) >= count else None
        lists = [one for one in self._lists if one.goes_on_before(bar)]
        if not lists:
            return (), 0
        settled = min(bisect_right(known, one.last) for one in lists)
        missing = count - settled
        chunk = ceil(missing / len(lists))
        if any(one.last for one in lists) and budget - missing <= 3 * len(lists) * chunk:
            # Too much would be read in vain: only of the lists that come next.
            missing = ceil(missing / 4)
            ranks = [bisect_right(known, one.last) for one in lists]
            lists = [one for one, rank in zip(lists, ranks, strict=True) if rank <= settled + missing]
            chunk = ceil(missing / len(lists))
        return lists, chunk

    def _read(self, lists: Sequence["_List"], chunk: int) -> int:
        # Text, because Core would compile another statement for each number of lists.
        parts: list[str] = []
        parameters: list[Any] = []
        for number, one in enumerate(lists):
            part, values = one.part(self._order, chunk, number)
            parts.append(part)
            parameters.extend(values)
        found: list[list[Key]] = [[] for _ in lists]
        for number, *key in self._connection.exec_driver_sql(" UNION ALL ".join(parts), tuple(parameters)):
            found[number].append(tuple(key))
        for one, keys in zip(lists, found, strict=True):
            one.came(keys, chunk)
        self._known = sorted(chain(self._known, *found))
        return sum(map(len, found))


class Chain:
    """Reads one merge to its end, then the next: each stands wholly before the one that follows."""

    def __init__(self, merges: Sequence[Merge]) -> None:
        self._merges = list(merges)

    def read(self, count: int) -> Sequence[int]:
        """Return the next ids; fewer than ``count`` only where there are no more."""
        ids: list[int] = []
        while self._merges and len(ids) < count:
            ids.extend(self._merges[0].read(count - len(ids)))
            if len(ids) < count:
                del self._merges[0]
        return ids


class _List:
    """One ordered read, and how far it has come."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.last: Key = ()
        self.ended = False

    def goes_on_before(self, bar: Key | None) -> bool:
        return not self.ended and (bar is None or self.last < bar)

    def part(self, order: Sequence[str], limit: int, number: int) -> tuple[str, Sequence[Any]]:
        """Return the text for the next rows, each with the number of this list, and its parameters."""
        condition, parameters = self._read.condition, [*self._read.parameters]
        if self.last:
            condition = f"{condition} AND {_after(order)}"
            # Each value but the last is compared twice.
            parameters += [value for value in self.last[:-1] for _ in range(2)] + [self.last[-1]]
        columns = ", ".join(order)
        return (
            f"(SELECT {number}, {columns} FROM {self._read.source} WHERE {condition} "  # noqa: S608 - no value in it
            f"ORDER BY {columns} LIMIT {limit})"
        ), parameters

    def came(self, keys: Sequence[Key], asked: int) -> None:
        """Note what was read."""
        self.ended = len(keys) < asked
        if keys:
            self.last = keys[-1]


def _after(order: Sequence[str]) -> str:
    """Return the condition for what follows a row. Written out: MariaDB finds no range in a comparison of rows."""
    *others, last = order
    following = f"{last} > %s"
    for name in reversed(others):
        following = f"({name} > %s OR ({name} = %s AND {following}))"
    return following
