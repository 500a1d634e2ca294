"""Text of others, as a log or a terminal may hold it: no orders, no forged lines, no passwords of databases."""

import re
import traceback

from sapwood.errors import SapwoodError

LONGEST_ERROR = 500
"""Characters of somebody else's error that stand in a line."""

_LONGEST_STORY = 64 * 1024
_MARGIN = 1024
"""So much more is looked at for passwords: one that the cut goes through would not be known for one."""

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Bounded, so that no text takes long.
_IN_URL = re.compile(r"(://[^\s/:@]{0,200}:)\S{1,500}(?=@)")
_NAMED = re.compile(
    r"\b((?:ssl|ssl_key_)?(?:password|passwd|passfile)\s{0,3}=\s{0,3})[^\s&,;)'\"]{1,500}", re.IGNORECASE
)


def escaped(text: str) -> str:
    """Return ``text`` with control and direction characters written out, so that it stays on its line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def masked(text: str) -> str:
    """Return ``text`` without the passwords of the database URLs in it."""
    return _NAMED.sub(r"\1***", _IN_URL.sub(r"\1***", text))


def in_a_line(error: SapwoodError) -> str:
    """Return what an error says, and why, on one line."""
    return " – ".join(filter(None, (error.what, error.why.replace("\n", ", "))))


def told(text: str) -> str:
    """Return what somebody else has worded as a line may hold it: short, escaped, without passwords."""
    return escaped(masked(text[: LONGEST_ERROR + _MARGIN])[:LONGEST_ERROR])


def inset(text: str, by: str = "    ") -> str:
    """Return somebody else's lines as a log may hold them: set in, so that none passes for a line of the log."""
    return "\n".join(
        by + escaped(line) for line in masked(text[: _LONGEST_STORY + _MARGIN])[:_LONGEST_STORY].splitlines()
    )


def storable(text: str) -> str:
    """Return text as every store can keep it: no NUL, no lone surrogate, no more than 64 KiB; without passwords."""
    if len(text) > _LONGEST_STORY:
        # Masked with a margin: a password that the cut goes through would not be known for one.
        half = _LONGEST_STORY // 2
        start, end = masked(text[: half + _MARGIN])[:half], masked(text[-half - _MARGIN :])[-half:]
        text = f"{start}\n… {len(text) - 2 * half} characters left out …\n{end}"
    else:
        text = masked(text)
    return text.replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode("utf-8")


def story(error: BaseException, by: str = "    ") -> str:
    """Return the traceback of an error in lines that are escaped and set in, without passwords."""
    try:
        return inset("".join(traceback.format_exception(error)), by)
    except Exception:  # noqa: BLE001 - the error's own code runs here too
        return by + type(error).__name__
