"""The specification of an adapter, as cases that it must pass: verb × state × race × error.

The suite knows no test framework::

    @pytest.mark.parametrize("case", conformance.cases(), ids=str)
    def test_my_adapter_conforms(case, tmp_path):
        case.run(lambda: MyAdapter(tmp_path / "jobs"))

The callable returns an adapter whose store is migrated and empty.
"""

from collections.abc import Sequence
from itertools import chain

from sapwood.testing.suite import (
    claims,
    exchanges,
    fences,
    marks,
    promotions,
    races,
    reads,
    storing,
    transitions,
    workers,
)
from sapwood.testing.suite.bench import Helpers
from sapwood.testing.suite.case import Case

__all__ = ["Case", "Helpers", "cases"]

_CHAPTERS = (transitions, fences, marks, claims, exchanges, promotions, workers, storing, reads, races)


def cases() -> Sequence[Case]:
    """Return every case, always in the same order. No two have the same id."""
    return tuple(chain.from_iterable(module.chapter for module in _CHAPTERS))
