"""How fast one worker drains no-op jobs: enqueue many, start one worker, count until the table is empty.

    python benchmarks/drain.py [--jobs 20000] [--runs 5] [--concurrency 5] [--async] [--database URL]

Without a URL each run gets a SQLite file of its own. In a server it uses tables of its own, named bench_*.

The bare figure of the same run, claims and deletes of the same rows by the same adapter with no job in between, says
how much of it is the database's part. Every job is counted: the run fails if one was missed or repeated.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

from sapwood import Job, Sapwood, SQLAlchemyAdapter, Worker
from sapwood.adapters.base import Settlement
from sapwood.lifecycle import Succeeded
from sapwood.record import JobDraft, WorkerRecord

counted: list[int] = []


class Nothing(Job, name="bench.nothing"):
    def perform(self, number: int) -> None:
        counted.append(number)


class NothingAsync(Job, name="bench.nothing_async"):
    async def perform(self, number: int) -> None:
        counted.append(number)


def drafts(count: int, name: str) -> list[JobDraft]:
    return [JobDraft(job=name, args=f'{{"number": {number}}}') for number in range(count)]


def drained(adapter: SQLAlchemyAdapter, arguments: argparse.Namespace) -> float:
    """Return jobs per second from the worker's start to its end."""
    app = Sapwood(adapter)
    counted.clear()
    adapter.enqueue(drafts(arguments.jobs, "bench.nothing_async" if getattr(arguments, "async") else "bench.nothing"))
    began = time.perf_counter()
    tally = Worker(app, concurrency=arguments.concurrency).workoff()
    seconds = time.perf_counter() - began
    if sorted(counted) != list(range(arguments.jobs)) or tally.succeeded != arguments.jobs or adapter.counts():
        raise SystemExit(f"not every job ran exactly once: {tally}, {adapter.counts()}")
    return arguments.jobs / seconds


def bare(adapter: SQLAlchemyAdapter, arguments: argparse.Namespace) -> float:
    """Return rows per second that the adapter alone claims and deletes, in batches of 1,000."""
    adapter.enqueue(drafts(arguments.jobs, "bench.nothing"))
    adapter.register(WorkerRecord(id="bare", host="-", pid=0, queues=None, concurrency=1, release="-"))
    began = time.perf_counter()
    done: list[Settlement] = []
    while True:
        answer = adapter.exchange("bare", done, limit=1000)
        if not answer.claimed:
            break
        done = [Settlement(record, Succeeded()) for record in answer.claimed]
    seconds = time.perf_counter() - began
    adapter.unregister("bare")
    return arguments.jobs / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=5)
    parser.add_argument("--async", action="store_true")
    parser.add_argument("--durability", choices=["full", "normal"], default="full")
    parser.add_argument("--database", help="the URL of a server")
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {"worker": [], "bare": []}
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            url = arguments.database or f"sqlite:///{Path(folder)}/jobs.db"
            adapter = SQLAlchemyAdapter(url, prefix="bench_", durability=arguments.durability)
            adapter.migrate()
            adapter.clear(running=True)
            rates["bare"].append(bare(adapter, arguments))
            rates["worker"].append(drained(adapter, arguments))
            adapter.close()
    chosen = {name: value for name, value in vars(arguments).items() if name != "database"}
    print(f"Python {platform.python_version()}, {platform.machine()}, {adapter.describe()}, {chosen}")
    for name, measured in rates.items():
        print(f"{name:7} {statistics.median(measured):8,.0f}/s  (from {min(measured):,.0f} to {max(measured):,.0f})")
    print(f"ratio   {statistics.median(rates['worker']) / statistics.median(rates['bare']):.2f}")


if __name__ == "__main__":
    main()
