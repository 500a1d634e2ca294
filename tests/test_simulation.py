"""Supervisors and rescue in virtual time: hundreds of schedules of faults in seconds."""

import os

import pytest

from simulation import SABOTAGE, SOON, Simulation, percentile, simulated, violation_found

SEED = int(os.environ.get("SAPWOOD_SEED") or 0)
"""The seed of the first schedule; those of the others follow it."""

SEEDS = range(SEED, SEED + 300)


def test_no_fault_makes_two_owners_loses_a_job_or_hides_a_death_for_long():
    figures = simulated(SEEDS)
    print(f"SAPWOOD_SEED={SEED}\n{figures}")  # noqa: T201 - shown where it fails, and with -s
    assert figures.events["taken for dead"] > len(SEEDS) / 10
    assert len(figures.by_beat) > len(SEEDS) / 10
    assert percentile(figures.by_beat, 0.99) <= SOON


def test_a_seed_gives_the_same_run():
    once, again = Simulation(SEED), Simulation(SEED)
    assert once.run() == again.run()
    assert once.trace == again.trace


BROKEN = {
    "rescue by age": "is run by",
    "self fence off": "is run by",
    "beat not compared": "after a beat",
    "gap rule off": "though its supervisor could",
    "fence off in settle": "whose claim was taken back",
}
"""What each broken rule comes to."""


@pytest.mark.parametrize("rule", SABOTAGE)
def test_a_broken_rule_is_found(rule):
    found = violation_found(rule, SEEDS)
    assert found is not None, f"SAPWOOD_SEED={SEED}"
    assert BROKEN[rule] in found, f"SAPWOOD_SEED={SEED}"
