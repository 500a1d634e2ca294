"""The main job, end to end: photographs come in, thumbnails and mails go out, some of it fails, nothing is lost.

Run it with ``make demo``, or ``python demo.py FOLDER`` for photographs of your own.
"""

import importlib.util
import logging
import os
import shutil
import sys
import threading
from pathlib import Path

OUTPUT = Path("demo-output").absolute()
shutil.rmtree(OUTPUT, ignore_errors=True)
(OUTPUT / "photos").mkdir(parents=True)
logging.basicConfig(filename=OUTPUT / "jobs.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
os.environ.setdefault("DATABASE_URL", f"sqlite:///{OUTPUT}/shop.db")

import mailbox as post  # noqa: E402

from jobs import Announce, MakeThumbnail, app, engine  # noqa: E402
from models import Base, Photo  # noqa: E402
from sqlalchemy import select  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from sapwood import JobState, Worker  # noqa: E402
from sapwood.adapters.base import JobFilter  # noqa: E402
from sapwood.events import Event, JobEnded  # noqa: E402
from sapwood.lifecycle import Failed, Retried, Succeeded  # noqa: E402

WANTED = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "motorcycle_left.png"]


class UploadFailed(Exception):
    """Something went wrong after the photograph was recorded: a web framework would answer with an error page."""


def photographs() -> list[Path]:
    """Return the photographs to work on: a folder's, or those that scikit-image ships."""
    if len(sys.argv) > 1:
        return sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    package = importlib.util.find_spec("skimage")
    if package is None or package.submodule_search_locations is None:
        sys.exit("no photographs: run `make demo`, or name a folder that has some")
    folder = Path(package.submodule_search_locations[0]) / "data"
    return [folder / name for name in WANTED if (folder / name).exists()]


def upload(path: Path, tell: str, *, then_fail: bool = False) -> None:
    """What a web application does with an upload: record it, and enqueue what follows in the same transaction."""
    with Session(engine) as session, session.begin():
        photo = Photo(name=path.stem, path=str(path))
        session.add(photo)
        session.flush()
        with app.transaction(session):
            MakeThumbnail.perform_later(photo.id)
            Announce.perform_later(photo.id, tell)
        if then_fail:
            raise UploadFailed


def report(event: Event) -> None:
    """Say what came of each run, as it happens."""
    if not isinstance(event, JobEnded):
        return
    record = event.record
    name = f"{record.job.partition(':')[2]:14} #{record.id:<3} try {record.attempts}"
    match event.outcome:
        case Succeeded():
            print(f"  ✓ {name}  done in {event.seconds * 1000:.0f} ms")
        case Retried(wait, failure):
            print(f"  ↻ {name}  again in {wait:.1f} s: {failure.error[:110]}")
        case Failed(failure):
            print(f"  ✕ {name}  failed for good: {failure.error[:110]}")


def main() -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    app.migrate()
    app.adapter().clear(running=True)

    pictures = [Path(shutil.copy(path, OUTPUT / "photos")) for path in photographs()]
    truncated = OUTPUT / "photos" / "truncated.png"
    truncated.write_bytes(pictures[0].read_bytes()[:20_000])

    mailbox = post.Mailbox()
    server = post.serve(mailbox)
    os.environ["SMTP_HOST"], os.environ["SMTP_PORT"] = server.hostname, str(server.port)

    print(f"Uploading {len(pictures)} photographs, a truncated one, and one whose upload is rolled back:")
    for number, picture in enumerate(pictures):
        upload(picture, tell=post.BUSY if number == 1 else f"reader{number}@example.org")
    upload(truncated, tell="reader@example.org")
    before = len(app.adapter().jobs(limit=1000))
    try:
        upload(pictures[0], tell="nobody@example.org", then_fail=True)
    except UploadFailed:
        print(f"  {before} jobs enqueued; the rolled-back upload left {len(app.adapter().jobs(limit=1000)) - before}")

    print("Working:")
    settled = threading.Event()

    def watch(event: Event) -> None:
        report(event)
        settled.set()

    app.events.listen(watch)
    worker = Worker(app, concurrency=2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    while any(job.state is not JobState.FAILED for job in app.adapter().jobs(limit=1000)):
        settled.wait(0.2)
        settled.clear()
    worker.stop()
    thread.join()
    server.stop()
    summary(worker, mailbox)


def summary(worker: Worker, mailbox: post.Mailbox) -> None:
    tally = worker.tally
    print(f"\n{tally.succeeded} jobs succeeded, {tally.retried} tries were retried, {tally.failed} failed for good:")
    for job in app.adapter().jobs(JobFilter(states=[JobState.FAILED])):
        print(f"  #{job.id} {job.job} {job.args} after {job.attempts} tries: {job.last_error}")
    refused = mailbox.refused[post.BUSY]
    print(f"{len(mailbox.received)} mails delivered; {post.BUSY} refused {refused} times, then accepted")
    with Session(engine) as session:
        photos = session.scalars(select(Photo)).all()
        made = [photo for photo in photos if photo.thumbnail]
        print(f"{len(photos)} photographs recorded, {len(made)} thumbnails in demo-output/photos/thumbnails")
    app.close()
    engine.dispose()
    expected = {"thumbnails": len(photos) - 1, "failed": 1, "mails": len(photos), "refused": 2}
    got = {"thumbnails": len(made), "failed": tally.failed, "mails": len(mailbox.received), "refused": refused}
    if got != expected:
        sys.exit(f"that is not what should have happened: {got} instead of {expected}")


if __name__ == "__main__":
    main()
