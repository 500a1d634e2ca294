"""Adapters do what the model does, whatever happens in whatever order; and whatever does not is found."""

import pytest

from machine import run
from mutants import MUTANTS
from stores import STORES

EXAMPLES = {"memory": 500, "sqlite": 150, "postgresql": 30, "mysql": 30}
"""As many lives as take some seconds, of 60 steps each."""


@pytest.mark.parametrize("store", STORES)
def test_an_adapter_does_what_the_model_does(store):
    run(STORES[store], STORES[store].kind, examples=EXAMPLES[store], steps=60)


def test_an_adapter_that_remembers_where_nothing_is_ready_does_what_the_model_does(monkeypatch):
    monkeypatch.setattr("sapwood.adapters.dialects.postgresql._MANY_DEAD", 0)
    run(STORES["postgresql"], STORES["postgresql"].kind, examples=EXAMPLES["postgresql"], steps=60)


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("store", STORES)
def test_the_machine_finds_a_mutant(store, mutant):
    with MUTANTS[mutant](STORES[store].kind) as kind, pytest.raises(AssertionError):
        # It ends at the first difference: most mutants are found within a few lives.
        run(STORES[store], kind, examples=5 * EXAMPLES[store], steps=60)
