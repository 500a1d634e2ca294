"""Where the supervisor of a project keeps its state, and what the commands about it have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sapwood.cli.command import Invocation
from sapwood.daemon import Identity, NotRunning, StateFolder


def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that says which supervisor is meant."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where the supervisor keeps its state.  [default: .sapwood]",
    )(command)


def state_folder(call: Invocation, given: Path | None) -> StateFolder:
    """Return the folder of this project's supervisor: beside its pyproject.toml, or in the current directory.

    No code of the application is needed to find it: what is running can be stopped whatever has become of the code.
    """
    file = call.settings.file
    return StateFolder((given or (file.parent if file is not None else Path.cwd()) / ".sapwood").absolute())


def found(folder: StateFolder) -> Identity | None:
    """Return the supervisor that runs, None where there is none."""
    try:
        return folder.find()
    except NotRunning:
        return None
