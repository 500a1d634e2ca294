"""Whether the files that jobs were loaded from are still what they were."""

import sys
from pathlib import Path

from sapwood import registry


class Sources:
    """Remembers when the files with jobs were changed, and tells once of each that was changed since."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def note(self) -> None:
        """Begin with the files as they are now."""
        self._seen = {file: stamp for file in _files() if (stamp := _stamp(file)) is not None}

    def changed(self) -> tuple[str, ...]:
        """Return the files that were changed, and were not returned before."""
        now = {file: _stamp(file) for file in self._seen}
        changed = tuple(sorted(file for file, stamp in now.items() if stamp is not None and stamp != self._seen[file]))
        for file in changed:
            del self._seen[file]
        return changed


def _files() -> set[str]:
    classes = filter(None, map(registry.find, registry.names()))
    modules = {job_class.__module__ for job_class in classes}
    files = (getattr(sys.modules.get(module), "__file__", None) for module in modules)
    return {file for file in files if file and file.endswith(".py")}


def _stamp(file: str) -> int | None:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return None
