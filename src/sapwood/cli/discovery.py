"""Finding the app: by option, environment, pyproject.toml, or the places where people keep one."""

import difflib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from sapwood import registry
from sapwood.cli.problems import Misused, NotFound
from sapwood.config import Settings
from sapwood.errors import ConfigurationError, NoApp, SapwoodError, UnnamedJob

if TYPE_CHECKING:
    from sapwood.adapters.base import BaseAdapter
    from sapwood.app import Sapwood
    from sapwood.job import Job

T = TypeVar("T")

_SETUP = "sapwood setup                   makes one here\nsapwood -a MODULE:ATTR COMMAND  names one that is elsewhere"


class Project(Struct, frozen=True):
    """An app, and where it was found."""

    app: "Sapwood"
    name: str
    """How ``--app`` would name it: ``jobs:app``."""

    root: Path
    """The directory that holds the project."""

    module: ModuleType
    """The module that was asked for the app."""

    def load(self) -> None:
        """Import the modules with the app's jobs."""
        _guarded(f"the jobs of {self.name}", self.root, self.app.load)

    def adapter(self, name: str | None = None) -> "BaseAdapter":
        """Return the adapter ``name``, or without one the default, or else the first."""
        return self.app.adapter(name or self.default_adapter)

    @property
    def default_adapter(self) -> str:
        """The name of the adapter that is used where none is named."""
        return "default" if "default" in self.app.adapters else next(iter(self.app.adapters))

    def check_queue(self, queue: str) -> None:
        """See that the app has a queue that was named on the command line."""
        try:
            self.app.check_queue(queue)
        except ConfigurationError as error:
            raise Misused(error.what, why=error.why, mend=error.mend) from error

    def classes(self) -> Mapping[str, "type[Job]"]:
        """Return the job classes by the names under which their jobs are stored now."""
        found = {}
        for name in registry.names():
            job_class = registry.find(name)
            if job_class is not None:
                found[_name_now(job_class, name)] = job_class
        return found

    def find_class(self, name: str) -> str:
        """Return the stored name that ``name`` means: itself, or the only one that ends in it.

        Raises:
            NotFound: no class is called so, or more than one.
        """
        classes = self.classes()
        if name in classes:
            return name
        short = {stored: stored.rpartition(":")[2] for stored in classes}
        matches = [stored for stored, last in short.items() if name in {last, stored.replace(":", ".")}]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise NotFound(
                f'"{name}" is the name of {len(matches)} jobs',
                why=", ".join(matches),
                mend="write one of these in full",
            )
        folded = {last.lower(): last for last in short.values()}
        close = [folded[last] for last in difflib.get_close_matches(name.lower(), folded, n=1)]
        raise NotFound(
            f'no job is called "{name}"',
            why=f"the jobs of this app are {', '.join(sorted(short.values())) or 'none'}",
            mend=f"did you mean {close[0]}?" if close else f"sapwood generate job {name}",
        )


class _Place(Struct, frozen=True):
    """A file that may hold an app."""

    module: str
    file: Path
    path: Path
    """What must be on ``sys.path`` for it."""


def find(settings: Settings, given: str | None = None) -> Project:
    """Return the app that was named, or the only one in a place where people keep one.

    Raises:
        NoApp: there is none.
        ConfigurationError: it cannot be imported, or there are several.
    """
    here = Path.cwd()
    setting = settings.get("app", given)
    if setting.value is None:
        return _by_convention(settings, here)
    root = settings.file.parent if settings.file is not None and "app" in settings.table else here
    from_file = setting.origin not in {"--app", "SAPWOOD_APP"}
    for folder in (root / "src", root) if from_file else (root / "src", root, here):
        _make_importable(folder)
    return _named(setting.value, setting.origin, root)


def _name_now(job_class: "type[Job]", name: str) -> str:
    try:
        return job_class.stored_name()
    except UnnamedJob:
        return name


def _named(reference: str, origin: str, root: Path) -> Project:
    module_name, _, attribute = reference.partition(":")
    said = f'"{reference}" ({origin})'
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise NoApp(f"{said} names no module", mend="write MODULE:ATTR, such as jobs:app")
    module = _imported(module_name, root, said)
    apps = _apps_in(module)
    if not attribute:
        if len(apps) != 1:
            raise NoApp(f"{said} does not say which app", why=_what_is_there(module_name, apps), mend="add :ATTR")
        attribute = next(iter(apps))
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if not _is_app(value):
        close = difflib.get_close_matches(attribute, apps, n=1) or list(apps)[:1]
        raise NoApp(
            f"{said} is no Sapwood app",
            why=_what_is_there(module_name, apps),
            mend=f"did you mean {module_name}:{close[0]}?" if close else f"write app = Sapwood(…) in {module_name}",
        )
    return Project(app=value, name=f"{module_name}:{attribute}", root=root, module=module)  # type: ignore[arg-type]


def _by_convention(settings: Settings, here: Path) -> Project:
    roots = [here]
    if settings.file is not None and settings.file.parent != here:
        roots.append(settings.file.parent)
    for root in roots:
        for place in _places(root):
            if b"sapwood" not in place.file.read_bytes():
                continue
            _make_importable(place.path)
            module = _imported(place.module, root, f'"{place.module}"')
            apps = _apps_in(module)
            if len(apps) > 1:
                raise ConfigurationError(
                    f"{place.file} has {len(apps)} Sapwood apps",
                    why=_what_is_there(place.module, apps),
                    mend=f"say which: sapwood -a {place.module}:{next(iter(apps))} COMMAND",
                )
            for name, app in apps.items():
                return Project(app=app, name=f"{place.module}:{name}", root=root, module=module)
    table = settings.file or here / "pyproject.toml"
    raise NoApp(
        "no Sapwood app found",
        why="looked at --app, SAPWOOD_APP and [tool.sapwood] in "
        f"{table}{'' if settings.file else ' (no such file)'},\n"
        f"then in jobs.py, jobs/, app/jobs.py, */jobs.py and src/*/jobs.py of {here}",
        mend=_SETUP,
    )


def _places(root: Path) -> Iterator[_Place]:
    for folder, prefix, path in (
        (root, "", root),
        (root / "app", "app.", root),
        *((package.parent, f"{package.parent.name}.", root) for package in sorted(root.glob("*/__init__.py"))),
        *((folder, f"{folder.name}.", root / "src") for folder in sorted(root.glob("src/*"))),
    ):
        for file in (folder / "jobs" / "__init__.py", folder / "jobs.py"):
            if file.is_file():
                yield _Place(module=f"{prefix}jobs", file=file, path=path)


def _make_importable(folder: Path) -> None:
    if folder.is_dir():
        entry = str(folder)
        sys.path[:] = [entry, *(other for other in sys.path if other != entry)]


def _imported(name: str, root: Path, said: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return _guarded(name, root, lambda: importlib.import_module(name))
    except ConfigurationError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            raise NoApp(
                f"no module {name}: {said}", why=f"there is none in {root}, nor on the path of this Python", mend=_SETUP
            ) from cause
        raise


def _guarded(what: str, root: Path, action: Callable[[], T]) -> T:
    """Run the user's code; turn whatever it raises into an error that names the line."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        where = _line(error, root)
        if isinstance(error, SapwoodError):
            raise ConfigurationError(
                error.what, why="\n".join(filter(None, (error.why, where))), mend=error.mend
            ) from error
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigurationError(
            f"cannot import {what}",
            why="\n".join(filter(None, (f"{type(error).__name__}: {reason}", where))),
            mend="correct it there; -v shows the whole traceback",
        ) from error


def _line(error: BaseException, root: Path) -> str:
    """Return the innermost line of the project's own code that ``error`` came by."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename, root)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [
        frame for frame in frames if Path(frame.filename).is_relative_to(root) and "site-packages" not in frame.filename
    ]
    if not own and error.__cause__ is not None:
        return _line(error.__cause__, root)
    return f"{_relative(own[-1].filename, root)}:{own[-1].lineno} in {own[-1].name}" if own else ""


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _is_app(value: object) -> bool:
    from sapwood.app import Sapwood  # noqa: PLC0415 - help must not load it

    return isinstance(value, Sapwood)


def _apps_in(module: ModuleType) -> dict[str, "Sapwood"]:
    found: dict[str, Sapwood] = {}
    for name, value in vars(module).items():
        if _is_app(value) and all(value is not other for other in found.values()):
            found[name] = value
    return found


def _what_is_there(module: str, apps: dict[str, "Sapwood"]) -> str:
    return f"{module} holds {', '.join(apps) if apps else 'no Sapwood'}"
