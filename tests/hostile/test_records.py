"""Damaged records of a finished campaign: every reader answers in one line, or as if the record were not there."""

import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from damage import MIB, damaged_bytes, damaged_json, fault_of, in_child

from spectralgru.errors import ExpectedError
from spectralgru.pipeline.params import Params, load_params
from spectralgru.pipeline.provenance.explain import explain, find, read_record
from spectralgru.pipeline.status import describe
from spectralgru.setting import Setting
from spectralgru.training.data.dataset import load
from spectralgru.training.train import train

RUN = "results/quick/runs/ptb/constraint-0.2"
# A record and commands that read it; most cases call the reader itself, which is faster.
RECORDS = {
    f"{RUN}/seed-0/run.json": ["status", f"evaluate {RUN}/seed-0", "tables --corpus ptb"],
    f"{RUN}/seed-0/history.csv": ["status", "tables --corpus ptb"],
    f"{RUN}/seed-0/steps.csv": ["status", "claims --corpus ptb"],
    f"{RUN}/setting.json": ["train --corpus ptb --method constraint --value 0.2 --threads 1"],
    # Not `article`: Typst's threads do not live on in the fork that tries each case.
    "results/quick/provenance.json": ["provenance table1", "report"],
    "data/prepared/ptb.json": [f"evaluate {RUN}/seed-0", "provenance table1"],
}
MENDED = {f"{RUN}/setting.json"}  # by the command that reads it


def reader(record: str, params: Params) -> Callable[[], object]:
    """What the commands that read a record call."""
    root = Path("results/quick")
    if record.endswith("ptb.json"):
        return lambda: load(Path("data/prepared/ptb.npz"))
    if record.endswith("setting.json"):
        job = params.job("ptb", [Setting("constraint", 0.2)])
        places = Path("data/prepared/ptb.npz"), root, Path(".checkpoints")
        return lambda: train(job, *places, say=lambda _: None)
    if record.endswith("provenance.json"):
        settings = {"ptb": params.settings("ptb")}

        def told() -> list[str]:
            found = read_record(root)
            return list(explain(root, found, find(found, "table1"), settings, [0]))

        return told
    return lambda: describe(params, root)


def dates(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("record", RECORDS, ids=[Path(name).name for name in RECORDS])
def test_200_of_each_record(folder: Path, rng: random.Random, record: str) -> None:
    path, whole = folder / record, (folder / record).read_bytes()
    kept = [folder / "results/quick/runs", folder / "data"]
    stamp = path.stat()
    before = [dates(place) for place in kept]

    read = reader(record, load_params(Path("params.yaml")))

    def attempt(case: tuple[str, bytes]) -> str | None:
        command, content = case
        path.write_bytes(content)
        fault = None
        if command:
            fault = fault_of(command.split())
        else:
            with suppress(ExpectedError):
                read()
        left = path.read_bytes()
        path.write_bytes(whole)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        if [dates(place) for place in kept] != before:
            return f"{command} changed what was finished: {content[:500]!r}"
        if left != content and record not in MENDED:
            return f"{command} wrote {record}: {content[:500]!r}"
        return f"{fault} {content[:2000]!r}" if fault else None

    cases = []
    for number in range(200):
        damaged = (
            damaged_json(json.loads(whole), rng) if path.suffix == ".json" else damaged_bytes(whole, rng)
        )
        commands = RECORDS[record]
        cases.append((commands[number // 20 % len(commands)] if number % 20 == 0 else "", damaged))
    faults = in_child(attempt, cases, memory=2000 * MIB, seconds=20)
    assert not faults, "\n".join(faults)
