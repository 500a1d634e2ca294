"""One case of the suite, and the way to write many of them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from msgspec import Struct

from sapwood.adapters.base import BaseAdapter
from sapwood.testing.suite.bench import Bench, Helpers

NO_HELPERS = Helpers()


class Case(Struct, frozen=True):
    """One thing that every adapter does in the same way."""

    id: str
    """A sentence that says what is expected."""

    check: Callable[[Bench], None]

    requires: str | None = None
    """The field of :class:`Helpers` that the case cannot do without."""

    def run(self, make_adapter: Callable[[], BaseAdapter], helpers: Helpers = NO_HELPERS) -> None:
        """Raise AssertionError unless the adapter does what the case expects.

        Args:
            make_adapter: returns an adapter whose store is migrated and empty; it is closed at the end.
            helpers: what goes beyond the contract. A case whose ``requires`` names none of them is to be skipped.
        """
        adapter = make_adapter()
        try:
            self.check(Bench(adapter, helpers))
            # An adapter may keep a file open for each living worker.
            for worker in adapter.workers():
                adapter.unregister(worker.id)
        finally:
            adapter.close()

    def __str__(self) -> str:
        return self.id


class Chapter:
    """Cases about one side of the contract, collected from functions whose names are sentences."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._cases: list[Case] = []

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases)

    def case(self, check: Callable[[Bench], None]) -> Callable[[Bench], None]:
        """Add a function as a case."""
        self.add(_sentence(check), check)
        return check

    def table(self, rows: Mapping[str, tuple[Any, ...]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Add a function as one case per row: its name, and what the function is called with."""

        def collect(check: Callable[..., None]) -> Callable[..., None]:
            for name, values in rows.items():
                self.add(f"{_sentence(check)}, {name}", partial(_call, check, values))
            return check

        return collect

    def add(self, sentence: str, check: Callable[[Bench], None], *, requires: str | None = None) -> None:
        """Add one case."""
        self._cases.append(Case(f"{self.name}: {sentence}", check, requires))


def _call(check: Callable[..., None], values: tuple[Any, ...], bench: Bench) -> None:
    check(bench, *values)


def _sentence(function: Callable[..., None]) -> str:
    return function.__name__.replace("_", " ")
