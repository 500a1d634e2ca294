"""A worker that tells what it imported, opened, started and called while it worked: URL of the database, folder."""

import json
import logging
import sys
from pathlib import Path

import forgeries
from forgeries import KNOWN
from sapwood import Job, Sapwood, Worker
from sapwood.record import JobDraft

url, folder = sys.argv[1:]
logging.getLogger("sapwood").addHandler(logging.StreamHandler(sys.stderr))
app = Sapwood(url)
called = []
WATCHED = ("import", "exec", "compile", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ctypes.")
WATCHED += (
    "socket.connect",
    "shutil.",
    "os.remove",
    "os.rename",
    "os.chmod",
    "os.rmdir",
    "pickle.",
    "marshal.",
    "code.",
)


class Good(Job, name=KNOWN):
    def perform(self, number: int) -> None:
        called.append(number)


class Bad(Job, name="forgeries.bad", max_attempts=1):
    def perform(self) -> None:
        raise ValueError("bad")


# What is loaded at first use is loaded now.
Good.perform_later(0)
Bad.perform_later()
app.adapter().enqueue([JobDraft(job="nobody\x1b", args="{}")])
forgeries.rows, rows = lambda: iter([forgeries._SOUND | {"run_at": "infinity"}]), forgeries.rows
forgeries.write(app.adapter(), 1)
forgeries.rows = rows
Worker(app).workoff()
print("ready", flush=True)  # noqa: T201 - what it has to tell
sys.stdin.readline()

seen = []


def watch(event, details):
    """Note what is done, but for reading code to tell of it, and for what is done with the files of workers."""
    path = Path(str(details[0])) if details else Path()
    ours = path.parent.name.endswith(".workers") and ".." not in path.parts
    if event == "open":
        if not ours and (path.suffix != ".py" or "w" in str(details[1])):
            seen.append([event, repr(details)[:200]])
    elif event.startswith(WATCHED) and not (event == "os.remove" and ours):
        seen.append([event, repr(details)[:200]])


before = set(sys.modules)
called.clear()
sys.addaudithook(watch)
app.adapter().promote()
tally = Worker(app).workoff()
watched, seen = seen, []
print(json.dumps({"imported": sorted(set(sys.modules) - before), "seen": watched, "called": called}), flush=True)  # noqa: T201 - as above
app.close()
