"""What a terminal shows while the workflow runs, by the plugin that `make reproduce` names."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNAKEFILE = """
rule all:
    input: "trained-{0}", "trained-{1}"

rule train_setting:
    output: "trained-{setting}"
    log: "{setting}.log"
    shell: "echo {wildcards.setting} epoch 3/12, best 7 > {log}; sleep 2; %s; touch {output}"
"""


def screen(folder: Path, command: str) -> tuple[int, str]:
    """Exit code and output of Snakemake in a terminal of 100 columns."""
    (folder / "Snakefile").write_text(SNAKEFILE.replace("{0}", "a").replace("{1}", "b") % command)
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/workflow/logger", "COLUMNS": "100", "TERM": "xterm"}
    started = [sys.executable, "-m", "snakemake", "--cores", "2", "--logger", "spectralgru", "--keep-going"]
    process = subprocess.Popen(
        started, cwd=folder, env=environment, stdout=theirs, stderr=theirs, stdin=theirs
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    return process.wait(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 1)], ids=["done", "failed"])
def test_a_terminal_shows_jobs_and_how_far_each_is(tmp_path: Path, command: str, code: int):
    left, text = screen(tmp_path, command)
    assert left == code
    assert "Total Progress" in text
    for setting in "ab":
        assert re.search(rf"\n{setting} [━╸╺]+ +{setting} epoch 3/12, best 7", text)
    if code:
        assert "Log file: a.log" in text
    assert "Complete Log:" in text
