"""The job classes of this process, by the name under which their jobs are stored.

A row names its class; the name is looked up here and nowhere else. Nothing is ever imported because a row says so.
"""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sapwood.errors import DuplicateJobName, UnnamedJob

_MAIN = frozenset({"__main__", "__mp_main__"})
"""What the module that was started is called in its process, and in those that multiprocessing spawned from it."""

_classes: dict[str, dict[str, type[Any]]] = {}
"""The classes by the name that they claim, then by module and qualified name: there should be one."""

_conflicts: dict[str, tuple[str, ...]] = {}
"""Who claims a name that more than one claims."""

_lock = threading.Lock()


def register(job_class: type[Any], names: Sequence[str]) -> None:
    """Make a class known by its stored name and its aliases.

    The same class again (after a reload, in a notebook, from a decorator that makes a new one) takes its own place,
    and gives up the names that it has no more. Another class with the same name is remembered, for :func:`check` to
    report.
    """
    origin = _origin(job_class)
    with _lock:
        before = [name for name, claims in _classes.items() if origin in claims]
        for name in (*before, *names):
            others = {other: claim for other, claim in _classes.get(name, {}).items() if other != origin}
            _classes[name] = {**others, origin: job_class} if name in names else others
            _conflicts.pop(name, None)
            if len(_classes[name]) > 1:
                _conflicts[name] = tuple(_classes[name])


def find(name: str) -> type[Any] | None:
    """Return the class whose jobs are stored under ``name``, None where none is loaded."""
    return next(reversed(_classes.get(name, {}).values()), None)


def names() -> Sequence[str]:
    """Return the names of all classes that are loaded, aliases included."""
    with _lock:
        return sorted(name for name, claims in _classes.items() if claims)


def classes() -> Sequence[type[Any]]:
    """Return all classes that are loaded, each once."""
    with _lock:
        return list({job_class: None for claims in _classes.values() for job_class in claims.values()})


def check() -> None:
    """Refuse to go on when one name means two classes.

    Raises:
        DuplicateJobName: two modules give one name.
    """
    for name, claims in list(_conflicts.items()):
        raise DuplicateJobName(
            f"two job classes are stored as {name!r}",
            why=f"{' and '.join(claims)} claim it, and a worker could not tell their jobs apart",
            mend="give one of them another name=, or take the alias away",
        )


def stored_name(owner: Any) -> str:
    """Return the name of a class or function as ``module:QualName``, from any process the same.

    Raises:
        UnnamedJob: it is defined inside a function, where no other process can find it.
    """
    if "<locals>" in owner.__qualname__:
        raise UnnamedJob(
            f"{owner.__qualname__} has no name to be stored under",
            why="it is defined inside a function, so a worker could not find it",
            mend='give it one: class ...(Job, name="shop.welcome"), or define it in a module',
        )
    return f"{importable(owner.__module__)}:{owner.__qualname__}"


def importable(module: str) -> str:
    """Return the name under which other processes import ``module``: ``__main__`` is but what this one calls it.

    It stays ``__main__`` where there is nothing to import: in a notebook, after ``python -c``.
    """
    if module not in _MAIN:
        return module
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return _dotted(Path(file).resolve()) if file else "__main__"


def _dotted(file: Path) -> str:
    for entry in map(Path, sys.path):
        folder = entry.resolve()
        if file.is_relative_to(folder):
            parts = file.relative_to(folder).with_suffix("").parts
            if all(part.isidentifier() for part in parts):
                return ".".join(parts)
    return file.stem if file.stem.isidentifier() else "__main__"


def _origin(job_class: type[Any]) -> str:
    return f"{importable(job_class.__module__)}:{job_class.__qualname__}"
