"""Settings from the command line, the environment and pyproject.toml, each with the place it came from."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from sapwood.errors import ConfigurationError

KINDS: Mapping[str, Any] = {
    "app": str,
    "adapter": str,
    "queues": list[str],
    "concurrency": int,
    "poll": float,
}
"""The settings that exist, and what each must be."""


class Setting(Struct, frozen=True):
    """A value and where it was said."""

    value: Any
    origin: str
    """An option, a variable of the environment, a file, or ``default``."""


class Settings(Struct, frozen=True):
    """What the environment and the nearest pyproject.toml say. What is said on the command line goes first."""

    environ: Mapping[str, str]
    table: Mapping[str, Any]
    """``[tool.sapwood]``, empty where there is none."""

    file: Path | None
    """The nearest pyproject.toml, whether it has that table or not."""

    def get(self, name: str, given: object = None, *, default: object = None, option: str | None = None) -> Setting:
        """Return the first that is said of: ``given``, ``SAPWOOD_<NAME>``, ``[tool.sapwood]``, ``default``."""
        if given is not None:
            return Setting(given, option or f"--{name}")
        variable = f"SAPWOOD_{name.upper()}"
        said = self.environ.get(variable, "").strip()
        if said:
            value: object = [part.strip() for part in said.split(",")] if KINDS[name] == list[str] else said
            return Setting(_converted(name, value, variable, strict=False), variable)
        if name in self.table:
            origin = f"{self.file} [tool.sapwood]"
            return Setting(_converted(name, self.table[name], origin, strict=True), origin)
        return Setting(default, "default")


def read(directory: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that hold in ``directory``.

    Raises:
        ConfigurationError: the pyproject.toml is no TOML, or says what Sapwood does not know.
    """
    file = _nearest(directory)
    table = _table(file) if file is not None else {}
    return Settings(environ=os.environ if environ is None else environ, table=table, file=file)


def _nearest(directory: Path) -> Path | None:
    directory = directory.resolve()
    for folder in (directory, *directory.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            return file
    return None


def _table(file: Path) -> Mapping[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"cannot read {file}", why=str(error), mend="correct the file: Sapwood looks there for [tool.sapwood]"
        ) from error
    tool = document.get("tool", {})
    table = tool.get("sapwood", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise ConfigurationError(f"tool.sapwood in {file} is not a table", mend='write it as [tool.sapwood] app = "…"')
    for name in table:
        if name not in KINDS:
            close = difflib.get_close_matches(name, KINDS, n=1)
            raise ConfigurationError(
                f'{file} has an unknown setting "{name}" in [tool.sapwood]',
                why=f"the settings are {', '.join(KINDS)}",
                mend=f'did you mean "{close[0]}"?' if close else "remove it",
            )
    return table


def _converted(name: str, value: object, origin: str, *, strict: bool) -> object:
    try:
        return msgspec.convert(value, KINDS[name], strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f'the setting "{name}" cannot be {value!r}', why=f"{error} (said in {origin})", mend="correct it there"
        ) from error
