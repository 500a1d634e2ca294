"""Storms: quick by default; ``SAPWOOD_STORM=full`` takes the full numbers, and the times that workers really have."""

import random

import pytest
from msgspec import Struct
from seeds import FULL, seed


class Size(Struct, frozen=True):
    """How hard a storm is."""

    kills: int
    jobs: int
    freezes: int
    stops: int
    scale: float
    """The times of the workers, as a part of the real ones."""


@pytest.fixture(scope="session")
def size() -> Size:
    """The size of this run's storms."""
    if FULL:
        return Size(kills=1000, jobs=100_000, freezes=300, stops=500, scale=1.0)
    return Size(kills=60, jobs=8_000, freezes=10, stops=10, scale=1 / 20)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Chance, the same again with ``SAPWOOD_SEED=…``."""
    begun = seed()
    request.node.add_report_section("setup", "seed", f"SAPWOOD_SEED={begun}")
    return random.Random(begun)


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def url(request, database_url) -> str:
    """An empty database of each kind."""
    made: str = database_url(request.param)
    return made
