"""What ails a store that cannot serve, in the same words for every database."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from sapwood.errors import StoreError, StoreFull, StoreReadOnly, StoreUnavailable


class Trouble(Struct, frozen=True):
    """A reason for which a store cannot do what it is asked, though nothing is wrong with what it is asked."""

    kind: type[StoreError]
    what: str
    mend: str

    def error(self, store: str, said: str) -> StoreError:
        """Return the error for a store, with what the database said as its reason."""
        return self.kind(f"{store} {self.what}", why=said, mend=self.mend)


FULL = Trouble(
    StoreFull,
    "has no room left",
    "make room on its disk; workers keep what they have done and go on by themselves",
)
READ_ONLY = Trouble(
    StoreReadOnly,
    "cannot be written",
    "connect to the server that takes writes, or end its read-only mode; workers go on by themselves",
)
READ_ONLY_FILE = Trouble(
    StoreReadOnly,
    "cannot be written",
    "let this user write the file and its folder; workers go on by themselves",
)
CROWDED = Trouble(
    StoreUnavailable,
    "takes no further connection",
    "raise its max_connections, or set pool_size= lower",
)
STOPPING = Trouble(
    StoreUnavailable,
    "stops, or has only just started",
    "wait until it accepts connections; workers go on by themselves",
)
OVERLOADED = Trouble(
    StoreUnavailable,
    "lacks memory or threads",
    "see what else burdens the server; workers try again by themselves",
)
DAMAGED = Trouble(
    StoreUnavailable,
    "cannot be read or written: its disk fails",
    "check the disk and its file system",
)
UNREACHABLE = Trouble(
    StoreUnavailable,
    "cannot be reached",
    "see that the server runs and that the URL is right",
)
UNOPENED = Trouble(
    StoreUnavailable,
    "cannot be opened",
    "check that the folder exists and that this user may write it",
)
LOCKED = Trouble(
    StoreUnavailable,
    "is locked by another program",
    "end the transaction that it keeps open",
)

_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: READ_ONLY_FILE,
    errno.EIO: DAMAGED,
}


@contextmanager
def named(store: str) -> Iterator[None]:
    """Name what the operating system says of the files beside a store."""
    try:
        yield
    except OSError as error:
        trouble = _ERRNO.get(error.errno or 0, UNOPENED)
        raise trouble.error(store, error.strerror or str(error)) from error
