"""The real workflow in a folder of its own, with networks small enough for seconds."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

import tiny
from forks import Fork

ROOT = Path(__file__).parents[1]
TABLE = "results/quick/tables/table1.csv"


class Campaign:
    """A working folder with its own params.yaml, data and results; one corpus, words; commands from a folder."""

    def __init__(
        self,
        folder: Path,
        constraint: list[float],
        clipping: list[float],
        seeds: list[int],
        commands: Path = Path(sys.executable).parent,
    ) -> None:
        self.folder, self.python = folder, str(commands / "python")
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "OMP_NUM_THREADS": "1",
        }
        self.values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
        self.values["quick"] |= {"run": ["ptb"], "seeds": seeds}
        self.ptb = self.values["quick"]["settings"]["ptb"]
        self.ptb["methods"] = {"constraint": constraint, "clipping": clipping, "none": False}
        self.ptb["data"] = {}
        self.ptb["model"] |= {"hidden_size": 16, "input_scale": 1.0}
        self.ptb["training"] |= {
            "epochs": 3,
            "batch_size": 6,
            "bptt_steps": 10,
            "learning_rate": 0.3,
            "trace_every": 5,
        }
        self.write_params()

    def write_params(self) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.values))

    def use_tiny_corpus(self) -> None:
        tiny.write_corpora(self.folder / "data")

    def use_treebank(self) -> None:
        """The real corpus: its raw files where this checkout has them; else `prepare` fetches them."""
        raw = ROOT / "data/raw/ptb"
        if raw.exists():
            shutil.copytree(raw, self.folder / "data/raw/ptb")
        self.ptb["data"] = {"train": 3000, "valid": 800, "test": 800, "vocabulary": 60}
        self.write_params()

    def start(self, *arguments: str, **environment: str) -> Fork:
        """Start `snakemake` on the project's own Snakefile."""
        command = [self.python, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments]
        return Fork(command, cwd=self.folder, env=self.environment | environment, merged=True)

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run `snakemake` to its end: exit code and output."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def tables(self) -> dict[str, bytes]:
        """Every table, byte by byte."""
        return {
            path.name: path.read_bytes()
            for path in sorted((self.folder / "results/quick/tables").glob("table*"))
        }
