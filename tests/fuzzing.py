"""Hostile input for what reads it: arguments, settings, and command lines. The quick tests and the soak share it."""

import json
import random
from collections.abc import Iterator
from typing import Any

WORDS = (
    "",
    " ",
    "-",
    "--",
    "0",
    "-1",
    "1",
    "4",
    "99999999999999999999",
    "1e9",
    "1e999",
    "nan",
    "٣",
    "²",
    "a",
    "default",
    "default:2,email:1",
    "default:0",
    "a:b:c",
    ":",
    ",",
    "+",
    "all:9999",
    "x=1",
    "user_id=42",
    "user_id=" + "9" * 5000,
    "=",
    "[",
    "[" * 3000,
    '{"user_id": ' + "[" * 3000,
    "{}",
    '{"user_id": NaN}',
    "\x1b[2J",
    "\u202e",
    "\ud800",
    "\0",
    "a\nb",
    "../../etc/passwd",
    "/",
    "/nowhere/at/all",
    "/dev/null",
    "x" * 5000,
    "'; DROP TABLE x; --",
    "%s%n",
    "{0.__class__}",
    "failed",
    "exploded",
    "WelcomeEmail",
    "jobs:app",
    "os:system",
    "jobs:app.__init__.__globals__",
    "os.path:join",
    "1h30m",
    "99999999999w",
    "2030-12-31T12:00Z",
    "0001-01-01",
    "9999-12-31T23:59:59",
    "0001-01-01T00:00:00+23:59",
    "-n",
    "--json",
    "--help",
    "--yes",
    "--dry-run",
    "--no-input",
)

COMMANDS = {
    ("list",): ("--adapter", "--class", "--queue", "-s", "--limit", "--after"),
    ("show",): ("--adapter",),
    ("clear",): ("--adapter", "--class", "--queue", "-s", "--running", "--dry-run"),
    ("enqueue",): ("--queue", "--priority", "--in", "--at"),
    ("migrate",): ("--adapter", "--check", "--status", "--sql"),
    ("generate", "job"): ("--queue", "--async", "--max-attempts", "--dry-run"),
    ("generate", "service"): ("-n", "-c", "--shutdown-timeout", "--name", "--probe-port", "--dry-run"),
    ("generate",): (),
    ("status",): ("--state-dir",),
    ("stop",): ("-n", "--timeout", "--now", "--state-dir"),
    ("restart",): ("-n", "-c", "--wait", "--state-dir"),
    ("workoff",): ("--adapter", "--queue", "-c"),
    ("setup",): (),
    ("no-such-command",): (),
    (): (),
}
COMMON = ("-a", "-q", "-v", "--color", "--json", "-h", "-V", "-C")


def command_lines(seed: int) -> Iterator[list[str]]:
    """Give command lines without end. None starts a process, or changes the directory to one that is there."""
    chance = random.Random(seed)
    commands = list(COMMANDS)
    while True:
        command = chance.choice(commands)
        words = list(command)
        for _ in range(chance.randint(0, 4)):
            words.append(chance.choice([*COMMANDS[command], *COMMON, *WORDS]))
            if words[-1] == "-C":
                words.append("/nowhere")
            elif chance.random() < 0.6:
                words.append(chance.choice(WORDS))
        yield [word for word in words if not (command == ("setup",) and word.startswith("/"))]


def documents(seed: int) -> Iterator[str]:
    """Give texts without end that are JSON, nearly, or not at all."""
    chance = random.Random(seed)
    while True:
        text = json.dumps(_value(chance, 4), ensure_ascii=chance.random() < 0.5)
        for _ in range(chance.randint(0, 3)):
            at = chance.randrange(len(text) + 1)
            text = (
                text[:at]
                + chance.choice(['"', "{", "}", "[", "]", ",", ":", "\\u", "\ud800", "9" * 50, "\0"])
                + text[at:]
            )
        yield text


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.randint(0, 9 if depth else 6)
    match kind:
        case 0:
            return chance.choice([None, True, False])
        case 1:
            return chance.choice([0, -1, 2**31, 2**63, 2**64, -(2**70), 10**50])
        case 2:
            return chance.choice([0.0, -0.0, 1e308, 5e-324, float("inf"), float("nan")])
        case 3 | 4 | 5 | 6:
            return chance.choice([*WORDS[:45], "number", "2030-01-01", "self", "*args", "**kwargs", "__class__"])
        case 7:
            return [_value(chance, depth - 1) for _ in range(chance.randint(0, 4))]
        case _:
            names = ["number", "when", "names", "options", "self", "*rest", "**more", "__class__", "py/object", ""]
            return {chance.choice(names): _value(chance, depth - 1) for _ in range(chance.randint(0, 5))}
