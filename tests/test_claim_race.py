"""Many processes that claim from one queue at once: each job goes to one of them, and each of them gets its share."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import JobDraft

PROCESSES = 8
JOBS = 10_000

PROGRAM = Path(__file__).parent / "programs" / "claim_racer.py"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_every_job_is_claimed_once_by_racing_processes_and_none_of_them_starves(kind, database_url, tmp_path):
    url = database_url(kind)
    adapter = SQLAlchemyAdapter(url)
    adapter.migrate()
    jobs = adapter.enqueue([JobDraft(job="race.job", args="{}")] * JOBS)
    files = [tmp_path / f"claims-{number}" for number in range(PROCESSES)]
    racers = [_started(url, file) for file in files]
    for racer in racers:
        assert racer.stdout.readline() == "there\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [racer.communicate() for racer in racers]

    assert [(racer.returncode, err) for racer, (_, err) in zip(racers, told, strict=True)] == [(0, "")] * PROCESSES
    claims = [[int(line) for line in file.read_text().split()] for file in files]
    assert Counter(job for claimed in claims for job in claimed) == Counter(jobs), "each once"
    shares = [len(claimed) for claimed in claims]
    assert min(shares) >= JOBS / PROCESSES / 2, shares
    assert adapter.counts() == {}
    adapter.close()


def _started(url: str, file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", PROGRAM, url, file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
