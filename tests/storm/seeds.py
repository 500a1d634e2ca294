"""How long a storm is, and where its chance begins."""

import os
import time

FULL = os.environ.get("SAPWOOD_STORM") == "full"

QUICK_SEED = 20_261_125


def seed() -> int:
    """Return where chance begins: as it was said, in the quick form always alike, in the full one anew each time."""
    said = os.environ.get("SAPWOOD_SEED")
    return int(said) if said else time.time_ns() % 1_000_000_000 if FULL else QUICK_SEED
