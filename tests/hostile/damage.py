"""Seeded damage to bytes and to JSON trees, and a child process that contains whatever comes of it."""

import hashlib
import json
import os
import random
import resource
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from spectralgru.pipeline.cli import main

MIB = 1 << 20
TEXTS = (
    "",
    " ",
    "..",
    "/",
    "../../../../ESCAPE",
    "/proc/self/mem",
    "\x00",
    "a\nb",
    "\udcff",
    "\u202e",
    "é" * 300,
    "x" * 5000,
    "-1",
    "1e999",
    "NaN",
    "{0.__class__}",
    "%s%n",
    "<script>",
    "!!python/object:os.system",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    0.2000001,
    2**31,
    2**63,
    10**30,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    [],
    [[]],
    {},
    {"": None},
    *TEXTS,
)


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, whole bytes, ends, pieces left out, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        change = rng.randrange(7)
        if change == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif change == 1 and data:
            data[at % len(data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif change == 2:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
        elif change == 3:
            del data[at:]
        elif change == 4:
            del data[at : min(other, at + 64)]
        elif change == 5:
            data[at:at] = data[at : min(other, at + 64)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(data)


def damaged_tree(tree: Any, rng: random.Random) -> Any:
    """A copy of a tree of dicts and lists, in which one or two nodes are another value, gone, doubled or nested."""
    tree = deepcopy(tree)
    for _ in range(rng.randint(1, 2)):
        nodes = [(None, None), *_nodes(tree)]
        holder, key = rng.choice(nodes) if rng.random() < 0.97 else nodes[0]
        if holder is None:
            tree = rng.choice(VALUES) if rng.random() < 0.3 else tree
            continue
        change = rng.randrange(5)
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif change == 2:
            holder[key] = [holder[key], holder[key]]
        else:
            holder[key] = rng.choice(VALUES)
    return tree


def damaged_json(tree: Any, rng: random.Random) -> bytes:
    """The tree as JSON, damaged as a tree or, one time in four, as text."""
    if rng.random() < 0.25:
        return damaged_bytes(json.dumps(tree).encode(), rng)
    return json.dumps(damaged_tree(tree, rng)).encode()


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [node for key, value in items for node in ((tree, key), *_nodes(value))]


def in_child(
    attempt: Callable[[Any], str | None], cases: Sequence[Any], memory: int = 512 * MIB, seconds: float = 10
) -> list[str]:
    """What is wrong with each case that is: what `attempt(case)` returns or raises, a crash, a case that hangs.

    The cases run one after another in a forked process that may take `memory` bytes more than this one has, and
    `seconds` each; after a crash or a hang another process goes on with the next case.
    """
    faults: list[str] = []
    done = 0
    while done < len(cases):
        answers, speaker = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            _work(attempt, cases[done:], memory, seconds, speaker)
        speaker.close()
        ended = ""
        while done < len(cases) and not ended:
            try:
                fault = answers.recv() if answers.poll(seconds) else f"took more than {seconds} s"
            except EOFError:
                fault = "ended the process"
            ended = fault if fault in ("ended the process", f"took more than {seconds} s") else ""
            if fault:
                faults.append(f"case {done}: {fault}")
            done += 1
        if ended:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return faults


def _work(
    attempt: Callable[[Any], str | None],
    cases: Sequence[Any],
    memory: int,
    seconds: float,
    speaker: Connection,
) -> NoReturn:
    """The child: an answer for every case, then the end."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    processor = int(seconds * len(cases)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in cases:
        try:
            answer = attempt(case)
        except BaseException:
            answer = traceback.format_exc()
        speaker.send(answer)
    os._exit(0)


def spectralgru(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command line, run in this process."""
    output, errors = StringIO(), StringIO()
    with patch("sys.argv", ["spectralgru", *arguments]), redirect_stdout(output), redirect_stderr(errors):
        try:
            main()
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return code, errors.getvalue()


def fault_of(arguments: Sequence[str]) -> str | None:
    """What is wrong with how a command line ends, if anything is."""
    code, errors = spectralgru(*arguments)
    if code not in (0, 1, 2, 75):
        return f"{arguments}: exit code {code}: {errors}"
    if "Traceback" in errors or "a bug in spectralgru" in errors:
        return f"{arguments}: {errors}"
    if code and not errors.strip():
        return f"{arguments}: exit code {code}, and not a word"
    return None


def contents(folder: Path) -> dict[str, str]:
    """Kind, permissions and SHA-256 of everything below `folder`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[path.relative_to(folder).as_posix()] = f"{path.lstat().st_mode:o} {digest}"
    return found
