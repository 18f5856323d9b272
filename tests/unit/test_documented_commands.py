"""Every command that README and docs show: planned or run where that takes seconds, else understood by its program.

And every Python block of theirs runs, page by page. A new command or block is covered by itself.
"""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from dvc.cli import parse_args as parse_dvc
from snakemake.cli import main as run_snakemake
from snakemake.cli import parse_args as parse_snakemake
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from typer.main import get_command

import tiny
from spectralgru.files import write_json
from spectralgru.pipeline.cli import app

ROOT = Path(__file__).parents[2]
# The commands of CONTRIBUTING.md are about code that is not here yet: package/test_contributing.py.
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "config/README.md",
]
PROGRAMS = ("snakemake", "spectralgru", "dvc", "make", "python")
# They fetch, draw, measure or train for long, wait for a browser or for more runs, or need a server or GPUs.
LONG = re.compile(
    r"(?<!\w)(fetch|prepare|bench|experiment|provenance|ui|--follow|--watch|--scale paper|MLFLOW_TRACKING_URI|--gpus)\b"
)
BLOCK = re.compile(r"^```\w*\n(.*?)^```|^((?:    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
PYTHON = Sybil([PythonCodeBlockParser()])


def shown(text):
    """Lines of code blocks, and code in sentences that is a command with options or targets."""
    for block in BLOCK.findall(text):
        yield from "".join(block).replace("\\\n", " ").splitlines()
    yield from INLINE.findall(BLOCK.sub("", text))


def commands():
    """Page and arguments of every command; `...` and `<name>` leave something to the reader."""
    for page in PAGES:
        for line in shown(page.read_text(encoding="utf-8")):
            for part in re.split(r" && | \| ", line.partition(" #")[0].strip().removeprefix("$ ")):
                words = re.sub(r"^(\w+=\S+ )*", "", part).split(maxsplit=1)
                if words and words[0] in PROGRAMS and not re.search(r"\.\.\.|…|<[a-zA-Z ]+>", part):
                    yield page.name, part


COMMANDS = sorted(set(commands()))
BLOCKS = {str(page.relative_to(ROOT)): blocks for page in PAGES if (blocks := list(PYTHON.parse(page)))}


def test_commands_are_found():
    found = {word for _, command in COMMANDS for word in command.split() if word in PROGRAMS}
    assert found == set(PROGRAMS)
    assert ("clusters.md", "snakemake --profile workflow/profiles/slurm") in COMMANDS


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder like the repository's, with corpora and networks for seconds, everything trained."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Snakefile", "workflow", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for corpus, threshold in (("ptb", 5), ("chorales", 15)):
        settings = values["quick"]["settings"][corpus]
        settings["data"] = {}
        settings["model"]["hidden_size"] = 12
        settings["training"] |= {"epochs": 2, "batch_size": 6, "bptt_steps": 10, "learning_rate": 0.1}
        settings["methods"] = {"constraint": [0.2], "clipping": [threshold], "none": False}
    values["quick"]["seeds"] = [0]
    values["own"] = {"tunes": {"midi": "tunes"}}
    values["quick"]["settings"]["tunes"] = values["quick"]["settings"]["chorales"]
    (folder / "tunes").mkdir()
    (folder / "tunes/one.mid").touch()  # planned, not read
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    tiny.write_corpora(folder / "data")
    prepared = folder / "data/prepared"
    shutil.copy(prepared / "chorales.npz", prepared / "tunes.npz")
    write_json(
        prepared / "tunes.json", json.loads((prepared / "chorales.json").read_text()) | {"corpus": "tunes"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for corpus, threshold in (("ptb", 5), ("chorales", 15)):
            for method in ("constraint --value 0.2", f"clipping --value {threshold}"):
                assert run(f"train --corpus {corpus} --method {method}".split()) == 0
        assert run(["train", "--corpus", "tunes", "--method", "constraint", "--value", "0.5"]) == 0
    return folder


def run(words):
    """Exit code of `spectralgru`, in this process."""
    try:
        return app(words, standalone_mode=False) or 0
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_does_what_it_says(page, command, project, monkeypatch, capfd):
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / ".cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    words = shlex.split(command.partition(" > ")[0])
    while "=" in words[0]:
        del words[0]
    program = {"snakemake": snakemake, "spectralgru": spectralgru, "dvc": dvc, "make": make, "python": python}
    program[words[0]](command, words[1:])


def snakemake(command, words):
    """It plans the whole; only a dry run may lack cores."""
    if words != ["--version"]:  # at which the parser itself ends
        _, options = parse_snakemake(words)
        without = {"-n", "--unlock", "--report", "--lint"}
        assert options.cores or options.jobs or without & set(words) or not words
    option = "--software-deployment-method"
    if option in words and not shutil.which(words[words.index(option) + 1]):  # Snakemake asks for it at once
        at = words.index(option)
        del words[at : at + 2]
    with pytest.raises(SystemExit) as end:
        run_snakemake([*words, "-n", "--quiet", "rules"])
    assert end.value.code in (0, None)


def spectralgru(command, words):
    """It succeeds, unless it would take long: then command and options are known."""
    if not words:
        return
    if not LONG.search(command):
        words = shlex.split(re.sub(r" \[.*?\]", "", command).partition(" > ")[0])[1:]
        names = {"NAME": "ptb", "DIR": "results/quick/runs/ptb/constraint-0.2/seed-0"}
        names["the company said"] = "w1 w2"
        assert run([names.get(word, word) for word in words]) == 0
        return
    group = get_command(app)
    with group.make_context("spectralgru", list(words), resilient_parsing=True) as context:
        _, chosen, rest = group.resolve_command(context, list(words))
        chosen.make_context(words[0], rest, resilient_parsing=True)


def dvc(command, words):
    """The command and its options are known."""
    if len(words) > 1:
        parse_dvc(words)


def make(command, words):
    """The target is there."""
    done = subprocess.run(
        ["make", "--dry-run", f"PYTHON={sys.executable}", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def python(command, words):
    """The script or module is there and knows the options before `--help`."""
    words = words[1:] if words[0] == "-m" else words
    start = runpy.run_module if command.startswith("python -m") else runpy.run_path
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.syspath_prepend(ROOT if start is runpy.run_module else ROOT / Path(words[0]).parent)
        patch.setattr(sys, "argv", [*words, "--help"])
        with pytest.raises(SystemExit) as end:
            start(words[0], run_name="__main__")
    assert end.value.code in (0, None)


def test_python_blocks_are_found():
    assert {"README.md", "docs/exploding.md", "docs/howto/curve.md"} <= set(BLOCKS)


@pytest.mark.parametrize("page", BLOCKS)
def test_the_python_of_a_page_runs(page, project, monkeypatch):
    monkeypatch.chdir(project)
    model = torch.nn.Sequential(torch.nn.GRU(3, 8), torch.nn.LSTM(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for block in BLOCKS[page]:
        for name, value in (("model", model), ("optimizer", optimizer)):  # the reader's own
            block.document.namespace.setdefault(name, value)
        block.evaluate()
