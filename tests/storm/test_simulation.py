"""The simulation of supervisors and rescue, in numbers."""

import multiprocessing
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

import pytest
from seeds import FULL, seed

from simulation import SOON, Figures, percentile, simulated

SCHEDULES = 1_000_000 if FULL else 10_000
CHUNK = 100


@pytest.mark.timeout(7200)
def test_no_fault_makes_two_owners_loses_a_job_or_hides_a_death_for_long(capsys):
    first_seed = seed()
    figures, began = Figures(0, 0, Counter(), [], []), time.monotonic()
    chunks = [range(first, first + CHUNK) for first in range(first_seed, first_seed + SCHEDULES, CHUNK)]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(simulated, chunk) for chunk in chunks]):
                figures.add(done.result())
        finally:
            pool.shutdown(cancel_futures=True)
    with capsys.disabled():
        print(f"\nSAPWOOD_SEED={first_seed}\n{figures}\nin {time.monotonic() - began:.0f} s")
    assert figures.schedules == SCHEDULES
    assert percentile(figures.by_beat, 0.99) <= SOON
