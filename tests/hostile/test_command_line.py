"""Command lines with words changed, left out, doubled or inserted; outputs that are not ordinary files."""

import os
import random
import stat
import threading
from pathlib import Path

import pytest
from damage import MIB, TEXTS, contents, fault_of, in_child, spectralgru

PTB, CHORALES = (f"results/quick/runs/{corpus}/constraint-0.2/seed-0" for corpus in ("ptb", "chorales"))
LINES = [
    line.split()
    for line in (
        "status --out results/quick --scale quick",
        "status --params params.yaml",
        "schema",
        f"evaluate {PTB} --data data --split test",
        f"evaluate {CHORALES}",
        f"sample --run {CHORALES} --tune 0 --steps 3 --temperature 1.0 --seed 1 --split test --out out/x.mid",
        f"sample --run {PTB} --prompt w1 --steps 3 --temperature 0.5 --out out/x.txt",
        "job --corpus ptb --method constraint --value 0.2 --seeds 0 --set training.epochs=2",
        "job --corpus chorales --method none --scale paper --set model.hidden_size=7",
        "train --corpus ptb --method clipping --value 5 --out out --checkpoints out/c --threads 1 --together 1",
        "train --corpus ptb --method none --out out --device cpu --processes 1 --gpus 0 --checkpoint-seconds 9",
        "tables --corpus ptb --scale quick --params params.yaml",
        "claims --corpus chorales",
        "provenance table1 --corpus ptb",
        "provenance --data data",
        "report --scale quick",
        "experiment cost --part ptb/bare --out out --data data --threads 1",
        "experiment learning_rate --conclude --out out",
        "fetch --corpus nottingham --data out/data",
        "prepare --corpus nonesuch --data data",
        "bench gru_layer --device cpu",
        "doctor --data data --params params.yaml",
    )
]
WORDS = [text for text in TEXTS if "\x00" not in text] + [
    *(
        "0",
        "2",
        "1e308",
        "nan",
        "-inf",
        "99999999999999999999",
        "2147483648",
        "0.2000001",
        "1,5",
        "--",
        "--out",
    ),
    *("params.yaml", "results", "data/prepared/ptb.npz", "fifo", "null", "ring", "out/" + "x" * 300),
    *("--help", "--debugg", "--corpus", "=", "training.epochs", "training.epochs=", "training.nonesuch=1"),
    *(
        "model.hidden_size=-1",
        "model.hidden_size=999999999",
        "data.vocabulary=[1, 2",
        "a.b.c.d=1",
        "constraint",
    ),
]


def changed(line: list[str], rng: random.Random) -> list[str]:
    line = list(line)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(1, len(line) + 1)
        change = rng.randrange(6)
        if change == 0 and at < len(line) and "out" not in line[at - 1 : at + 1]:
            del line[at]
        elif change == 1:
            line.insert(at, rng.choice(WORDS))
        elif change == 2 and at < len(line):
            line.insert(at, line[at])
        elif at < len(line):
            line[at] = rng.choice(WORDS)
    return line


@pytest.fixture
def odd(folder: Path) -> Path:
    """The campaign with a FIFO, a ring of links and, for root, a device in it."""
    os.mkfifo(folder / "fifo")
    (folder / "ring").symlink_to("ring")
    if os.geteuid() == 0:
        os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))  # never try the machine's own
    return folder


def test_500_command_lines(odd, rng):
    kept = ["results/quick/runs", "data", "params.yaml"]
    before = {name: contents(odd / name) for name in kept}
    lines = [changed(rng.choice(LINES), rng) for _ in range(500)]
    faults = in_child(fault_of, lines, memory=3000 * MIB, seconds=30)
    assert not faults, "\n".join(faults)
    assert {name: contents(odd / name) for name in kept} == before
    assert (odd / "fifo").is_fifo()
    assert (odd / "ring").is_symlink()
    assert os.geteuid() or (odd / "null").is_char_device()
    assert {path.name for path in odd.parent.iterdir()} == {"campaign", "tmp"}


OUTPUTS = {
    "sample music": f"sample --run {CHORALES} --steps 2 --out OUTPUT",
    "sample words": f"sample --run {PTB} --steps 2 --out OUTPUT",
    "table": "tables --corpus ptb",
    "claims": "claims --corpus ptb",
    "provenance": "provenance",
    "report": "report",
    "article": "article",
    "train": "train --corpus ptb --method none --threads 1 --out OUTPUT",
    "checkpoints": "train --corpus ptb --method none --threads 1 --out new --checkpoints OUTPUT",
}
MADE = {
    "table": "tables/table1.md",
    "claims": "claims.json",
    "provenance": "provenance.json",
    "report": "report.html",
    "article": "article.pdf",
}


@pytest.mark.parametrize("kind", ["null", "full", "fifo", "link", "link to null", "ring", "folder"])
@pytest.mark.parametrize("command", OUTPUTS)
def test_outputs_that_are_no_ordinary_files(folder, command, kind):
    output = folder / "results/quick" / MADE[command] if command in MADE else folder / "output"
    output.unlink(missing_ok=True)
    numbers = {"null": os.makedev(1, 3), "full": os.makedev(1, 7)}
    target = folder / "target"
    if kind in numbers or kind == "link to null":
        if os.geteuid():
            pytest.skip("needs root, to make a device")
        number = numbers.get(kind, os.makedev(1, 3))
        os.mknod(target if kind == "link to null" else output, stat.S_IFCHR | 0o666, number)
    if kind == "fifo":
        os.mkfifo(output)
        reader = os.open(output, os.O_RDWR)
        threading.Thread(target=drain, args=(os.dup(reader),), daemon=True).start()
    elif kind.startswith("link"):
        output.symlink_to(target)
    elif kind == "ring":
        output.symlink_to(output)
    elif kind == "folder":
        (output / "kept").mkdir(parents=True)
    (before,) = (path.lstat() for path in [output])
    kept = contents(folder / "results/quick/runs")
    assert fault_of(OUTPUTS[command].replace("OUTPUT", str(output)).split()) is None
    after = output.lstat()
    assert stat.S_IFMT(after.st_mode) == stat.S_IFMT(before.st_mode)
    assert (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)
    assert contents(folder / "results/quick/runs") == kept
    assert kind != "link to null" or target.is_char_device()


def drain(descriptor: int) -> None:
    while os.read(descriptor, 1 << 16):
        pass


def test_help_in_a_locale_that_cannot_write_it(folder):
    code, errors = spectralgru("sample", "--run", "\udcff", "--out", "é\u202e")
    assert (code, errors.count("\n")) == (2, 1)
