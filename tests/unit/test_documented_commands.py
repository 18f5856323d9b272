"""Every command that README and docs show is understood by the program it calls; a new one is covered by itself."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.cli import parse_args as parse_dvc
from snakemake.cli import parse_args as parse_snakemake
from snakemake.cli import parse_config
from typer.main import get_command

from spectralgru.pipeline.cli import app
from spectralgru.pipeline.params import asked

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "config/README.md"]
PROGRAMS = ("snakemake", "spectralgru", "dvc", "make")
BLOCK = re.compile(r"^```\w*\n(.*?)^```|^((?:    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
RULES = re.findall(
    r"^(?:rule|use rule \w+ as) (\w+)(?: with)?:",
    "".join(path.read_text() for path in [*(ROOT / "workflow/rules").glob("*.smk"), ROOT / "Snakefile"]),
    re.MULTILINE,
)


def shown(text):
    """Lines of code blocks, and code in sentences that is a command with options or targets."""
    for block in BLOCK.findall(text):
        yield from "".join(block).replace("\\\n", " ").splitlines()
    yield from INLINE.findall(BLOCK.sub("", text))


def commands():
    """Page and arguments of every command; `...` and `<name>` leave something to the reader."""
    for page in PAGES:
        for line in shown(page.read_text(encoding="utf-8")):
            for part in re.split(r" && | \| ", line.partition(" #")[0].strip()):
                words = re.sub(r"^(\w+=\S+ )*", "", part).split(maxsplit=1)
                if words and words[0] in PROGRAMS and not re.search(r"\.\.\.|…|<[a-zA-Z ]+>", part):
                    yield page.name, part


COMMANDS = sorted(set(commands()))


def test_commands_are_found():
    found = {word for _, command in COMMANDS for word in command.split() if word in PROGRAMS}
    assert found == set(PROGRAMS)
    assert ("README.md", "snakemake --profile workflow/profiles/gpu") in COMMANDS


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_is_understood(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    while "=" in words[0]:
        del words[0]
    {"snakemake": snakemake, "spectralgru": spectralgru, "dvc": dvc, "make": make}[words[0]](words[1:])


def snakemake(words):
    """Options, values and targets are known, the parameters valid, and nothing is missing."""
    _, options = parse_snakemake(words)
    assert options.cores or options.jobs or {"-n", "--unlock", "--report", "--lint"} & set(words) or not words
    asked(parse_config(options.config), Path("params.yaml"), Path("unused"))
    assert set(options.targets) <= set(RULES)


def spectralgru(words):
    """Command and options are known."""
    group = get_command(app)
    if words and not words[0].startswith("-"):
        with group.make_context("spectralgru", list(words), resilient_parsing=True) as context:
            _, command, rest = group.resolve_command(context, list(words))
            command.make_context(words[0], rest, resilient_parsing=True)


def dvc(words):
    """The command and its options are known."""
    if len(words) > 1:
        parse_dvc(words)


def make(words):
    """The target is there."""
    done = subprocess.run(
        ["make", "--dry-run", f"PYTHON={sys.executable}", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
