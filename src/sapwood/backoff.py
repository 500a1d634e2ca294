"""From the number of failed tries to the wait before the next one."""

import random

JITTER = 0.1
"""The largest share by which a wait is stretched, so that jobs which failed together do not return together."""


def polynomial(attempts: int) -> float:
    """Return the seconds to wait after the try number ``attempts`` has failed.

    The formula is ``attempts ** 4`` seconds plus up to 10 % jitter, never less than the formula says
    (Delayed::Job's and Redwood's curve). 24 tries spread over 16.6 days.
    """
    return attempts**4 * (1 + JITTER * random.random())  # noqa: S311 - a spread, not a secret
