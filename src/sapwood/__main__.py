"""The door for ``sapwood`` and ``python -m sapwood``."""

import sys

from sapwood.cli.main import run


def main() -> None:
    """Run one command and leave with its exit code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
