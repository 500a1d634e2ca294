"""Every error that Sapwood raises, as one tree.

SapwoodError                     what went wrong, why, and how to mend it
├── ConfigurationError           an app, a job class or a setting is declared wrongly
│   ├── NoApp                    there is no Sapwood to use
│   ├── UnknownAdapter           the app has no adapter of that name
│   ├── UnknownQueue             the app does not declare that queue
│   ├── DuplicateJobName         two classes claim one stored name
│   ├── UnnamedJob               a class that no worker could find again
│   └── MissingPerform           a Job without perform() was enqueued
├── InvalidOptions               set() was given what it cannot use
│   ├── InvalidPriority          outside 1..100
│   └── InvalidWait              both waits, a negative wait, a naive wait_until
├── InvalidArguments             the arguments of perform()
│   ├── ArgumentsMismatch        perform() does not accept them
│   ├── UnstorableArguments      JSON cannot hold them, or would change them
│   └── ArgumentsTooLarge        more than 1 MiB of JSON
├── TransactionMisused           a job did what would break the transaction that it works in
├── UnknownJob                   the name in a row is no class that is loaded
├── JobFailed                    a result was asked of a job that failed
├── ResultUnavailable            a result was asked of a job that keeps none
├── ResultTimeout                a result was not there in time
└── StoreError                   the place where jobs are kept
    ├── SchemaMissing            its tables are not there
    ├── SchemaOutdated           its tables lack steps that this release needs
    ├── SchemaTooNew             its tables are of a later release
    ├── ForeignConnection        a connection to another database was handed in
    ├── UnsupportedConnection    a connection that this adapter cannot join
    ├── UnsupportedStore         a database or file system that cannot keep jobs safely
    ├── StoreUnavailable         it cannot be reached
    │   └── CommitUnknown        a commit was not answered: it may have happened
    ├── UnreadableRow            a row that no release of Sapwood has written
    ├── StoreFull                it has no room left
    └── StoreReadOnly            it cannot be written

JobTimeout                       raised inside a job that has had its time; no Exception, so that few swallow it
"""


class SapwoodError(Exception):
    """An error with three parts: what happened, why, and how to mend it.

    ``str()`` gives all three; the command line prints them on lines of their own.
    """

    def __init__(self, what: str, *, why: str = "", mend: str = "") -> None:
        super().__init__(what, why, mend)
        self.what = what
        self.why = why
        self.mend = mend

    def __str__(self) -> str:
        """One sentence after another: what – why – mend."""
        return " – ".join(part for part in (self.what, self.why, self.mend) if part)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a trip between processes (keyword-only parts would not)."""
        return _rebuild, (type(self), self.what, self.why, self.mend)


def _rebuild(kind: type[SapwoodError], what: str, why: str, mend: str) -> SapwoodError:
    return kind(what, why=why, mend=mend)


class ConfigurationError(SapwoodError):
    """An app, a job class or a setting is declared wrongly."""


class NoApp(ConfigurationError):
    """There is no Sapwood to use."""


class UnknownAdapter(ConfigurationError):
    """The app has no adapter of that name."""


class UnknownQueue(ConfigurationError):
    """The app does not declare that queue."""


class DuplicateJobName(ConfigurationError):
    """Two classes claim one stored name."""


class UnnamedJob(ConfigurationError):
    """A class that no worker could find again, such as one defined inside a function without ``name=``."""


class MissingPerform(ConfigurationError):
    """A Job without ``perform`` was enqueued."""


class InvalidOptions(SapwoodError):
    """``set()`` was given what it cannot use."""


class InvalidPriority(InvalidOptions):
    """A priority outside 1..100."""


class InvalidWait(InvalidOptions):
    """Both waits, a negative wait, or a naive ``wait_until``."""


class InvalidArguments(SapwoodError):
    """Something is wrong with the arguments of ``perform``."""


class ArgumentsMismatch(InvalidArguments):
    """``perform`` does not accept these arguments."""


class UnstorableArguments(InvalidArguments):
    """JSON cannot hold these arguments, or would give back other ones."""


class ArgumentsTooLarge(InvalidArguments):
    """The arguments take more than 1 MiB of JSON."""


class TransactionMisused(SapwoodError):
    """A job did what would break the transaction that it works in, or asked for one that it has not."""


class UnknownJob(SapwoodError):
    """The name in a row is no class that is loaded here."""


class JobFailed(SapwoodError):
    """A result was asked of a job that failed or was cancelled."""


class ResultUnavailable(SapwoodError):
    """A result was asked of a job that keeps none."""


class ResultTimeout(SapwoodError):
    """A result was not there in time."""


class StoreError(SapwoodError):
    """The place where jobs are kept could not do what was asked."""


class SchemaMissing(StoreError):
    """The tables are not there: run ``sapwood migrate``."""


class SchemaOutdated(StoreError):
    """The tables lack steps that this release needs: run ``sapwood migrate``."""


class SchemaTooNew(StoreError):
    """The tables belong to a later release that this one cannot read."""


class ForeignConnection(StoreError):
    """A connection to another database than the adapter's was handed in."""


class UnsupportedConnection(StoreError):
    """A connection was handed in that this adapter cannot join."""


class UnsupportedStore(StoreError):
    """A database or file system that cannot keep jobs safely."""


class StoreUnavailable(StoreError):
    """The store cannot be reached."""


class CommitUnknown(StoreUnavailable):
    """A commit was not answered: it may have happened, or not."""


class UnreadableRow(StoreError):
    """A row that no release of Sapwood has written."""


class StoreFull(StoreError):
    """The store has no room left."""


class StoreReadOnly(StoreError):
    """The store cannot be written."""


class JobTimeout(BaseException):
    """A job has had its ``max_runtime``: raised in its thread, once, so that it can clean up and end.

    It is no ``Exception``: ``except Exception`` in a job does not swallow it.
    """
