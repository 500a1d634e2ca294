"""Exit codes, and the problems that only a command line has."""

from enum import IntEnum

from sapwood.daemon import AlreadyRunning, NotTrusted
from sapwood.errors import ConfigurationError, InvalidArguments, InvalidOptions, SapwoodError, StoreError, UnknownJob


class ExitCode(IntEnum):
    """What the caller's shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    APP = 3
    STORE = 4
    NOT_FOUND = 5
    REFUSED = 6
    INTERRUPTED = 130


class Misused(SapwoodError):
    """The command was called in a way that makes no sense."""


class Broken(SapwoodError):
    """A process that we started did not do its part."""


class NotFound(SapwoodError):
    """What was asked for is not there."""


class Refused(SapwoodError):
    """It could be done, but should not be, or not without being asked."""


_CODES: tuple[tuple[type[SapwoodError], ExitCode], ...] = (
    (Misused, ExitCode.USAGE),
    (InvalidOptions, ExitCode.USAGE),
    (InvalidArguments, ExitCode.USAGE),
    (ConfigurationError, ExitCode.APP),
    (StoreError, ExitCode.STORE),
    (NotFound, ExitCode.NOT_FOUND),
    (UnknownJob, ExitCode.NOT_FOUND),
    (Refused, ExitCode.REFUSED),
    (AlreadyRunning, ExitCode.REFUSED),
    (NotTrusted, ExitCode.REFUSED),
)


def exit_code(error: SapwoodError) -> ExitCode:
    """Return the code that says to a shell what ``error`` says to people."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.FAILED
