"""Every adapter does what the contract says."""

from collections import Counter

import pytest

from mutants import MUTANTS
from sapwood.adapters.memory import MemoryAdapter
from sapwood.testing import conformance
from stores import STORES

CASES = conformance.cases()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("store", STORES)
def test_an_adapter_conforms(store, case, tmp_path):
    tested = STORES[store]
    case.run(lambda: tested.open(tested.kind, tmp_path), tested.helpers)


@pytest.mark.parametrize("count", [len(CASES)], ids=lambda count: f"{count} cases")
def test_the_suite_has_at_least_300_cases_and_each_has_its_own_name(count):
    assert count >= 300
    assert [name for name, number in Counter(case.id for case in CASES).items() if number > 1] == []


def test_a_case_tells_which_helper_it_requires():
    required = {case.requires for case in CASES}
    assert required == {None, *conformance.Helpers.__struct_fields__}
    case = next(case for case in CASES if case.requires)
    with pytest.raises(LookupError, match=case.requires):
        case.run(MemoryAdapter)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_suite_finds_a_mutant(mutant):
    store = STORES["memory"]
    with MUTANTS[mutant](store.kind) as kind:
        found = [case for case in CASES if _fails(case, store, kind)]
    assert found


def _fails(case, store, kind):
    try:
        case.run(lambda: store.open(kind, None), store.helpers)
    except Exception:  # noqa: BLE001 - a mutant may fail in any way
        return True
    return False
