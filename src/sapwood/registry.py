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

_classes: dict[str, type[Any]] = {}
_names: dict[str, Sequence[str]] = {}
_claims: dict[str, tuple[str, ...]] = {}
_lock = threading.Lock()


def register(job_class: type[Any], names: Sequence[str]) -> None:
    """Make a class known by its stored name and its aliases.

    The same class again (after a reload, in a notebook, from a decorator that makes a new one) takes its own place,
    and gives up the names that it has no more. Another class with the same name is remembered, for :func:`check` to
    report.
    """
    origin = _origin(job_class)
    with _lock:
        for name in _names.get(origin, ()):
            _claims[name] = tuple(other for other in _claims[name] if other != origin)
        _classes[origin] = job_class
        _names[origin] = tuple(dict.fromkeys(names))
        for name in _names[origin]:
            _claims[name] = (*_claims.get(name, ()), origin)


def find(name: str) -> type[Any] | None:
    """Return the class whose jobs are stored under ``name``, None where none is loaded."""
    claims = _claims.get(name)
    return _classes[claims[-1]] if claims else None


def names() -> Sequence[str]:
    """Return the names of all classes that are loaded, aliases included."""
    with _lock:
        return sorted(name for name, claims in _claims.items() if claims)


def check() -> None:
    """Refuse to go on when one name means two classes.

    Raises:
        DuplicateJobName: two modules give one name.
    """
    with _lock:
        doubles = {name: claims for name, claims in _claims.items() if len(claims) > 1}
    for name, claims in doubles.items():
        raise DuplicateJobName(
            f"two job classes are stored as {name!r}",
            why=f"{' and '.join(claims)} both claim it, and a worker could not tell their jobs apart",
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
