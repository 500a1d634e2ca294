"""How fast many jobs are enqueued at once on PostgreSQL, by our own statement and by SQLAlchemy's lists of values.

    python benchmarks/bulk.py --database URL [--jobs 20000] [--runs 5]

Both store the same rows in turns, in tables named bench_*, by a connection of the adapter's own ("own") and by one of
the application's ("joined"). The ids are compared with the arguments: the run fails if one is out of order.
"""

import argparse
import statistics
import time

from sqlalchemy import create_engine

from sapwood import SQLAlchemyAdapter
from sapwood.adapters.dialects.base import Dialect
from sapwood.adapters.dialects.postgresql import PostgreSQLDialect
from sapwood.record import JobDraft


def seconds_of(adapter: SQLAlchemyAdapter, drafts: list[JobDraft], connection: object | None) -> float:
    began = time.perf_counter()
    ids = adapter.enqueue(drafts, connection=connection)
    seconds = time.perf_counter() - began
    if connection is not None:
        connection.commit()
    stored = adapter.jobs(after=ids[0] - 1, limit=len(drafts) + 1)
    if [record.id for record in stored] != list(ids) or [r.args for r in stored] != [d.args for d in drafts]:
        raise SystemExit("ids are out of order")
    adapter.clear()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", required=True)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    adapter = SQLAlchemyAdapter(arguments.database, prefix="bench_")
    adapter.migrate()
    drafts = [JobDraft(job="bench.nothing", args=f'{{"number": {number}}}') for number in range(arguments.jobs)]
    own_statement = PostgreSQLDialect.insert
    engine = create_engine(adapter._dialect.url)  # noqa: SLF001 - the same driver, whatever the URL says
    for place in ("own", "joined"):
        rates: dict[str, list[float]] = {"statement": [], "values": []}
        for _ in range(arguments.runs):
            for way, insert in (("statement", own_statement), ("values", Dialect.insert)):
                PostgreSQLDialect.insert = insert
                with engine.connect() as joined:
                    taken = seconds_of(adapter, drafts, joined if place == "joined" else None)
                rates[way].append(arguments.jobs / taken)
        statement, values = (statistics.median(rates[way]) for way in ("statement", "values"))
        spread = ", ".join(f"{way} {min(found):,.0f} to {max(found):,.0f}" for way, found in rates.items())
        ratio = statement / values
        print(f"{place:>6}: {statement:9,.0f} jobs/s, by values {values:9,.0f}: {ratio:.1f} times ({spread})")
    adapter.close()
    engine.dispose()


if __name__ == "__main__":
    main()
