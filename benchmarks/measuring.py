"""Interleaved timing, and what every benchmark leaves: one JSON, one table and one plot."""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from spectralgru.files import write_json

RESULTS = Path(__file__).parent / "results"


def interleaved(
    functions: Mapping[str, Callable[[], object]], repeats: int = 7, seconds: float = 0.3
) -> dict[str, list[float]]:
    """Seconds per call of each function: `repeats` samples of about `seconds`, taken in turn after a warm-up."""
    counts = {}
    for name, function in functions.items():
        function()
        counts[name] = max(1, round(seconds / clocked(function)))
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            samples[name].append(clocked(function, counts[name]) / counts[name])
    return samples


def clocked(function: Callable[[], object], count: int = 1) -> float:
    """Seconds that `count` calls take, a GPU's work included."""
    finish()
    begin = time.perf_counter()
    for _ in range(count):
        function()
    finish()
    return time.perf_counter() - begin


def finish() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> float:
    """Interquartile range over the median: what a comparison has to exceed."""
    low, _, high = quantiles(values, n=4)
    return (high - low) / median(values)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What it ran on."""
    name = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def write(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    draw: Callable[[Any], None],
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> None:
    """`results/<name>.json`, `.md` and, where matplotlib is installed, `.svg`; `draw` fills its axes."""
    RESULTS.mkdir(exist_ok=True)
    about = machine(device)
    content = {"title": title, "machine": about, "settings": settings or {}, "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    columns = list(rows[0])
    lines = [f"# {title}", "", _cells(columns), _cells(["---"] * len(columns))]
    lines += [_cells(_shown(row[column]) for column in columns) for row in rows]
    lines += ["", ", ".join(f"{key} {value}" for key, value in about.items() if value is not None), ""]
    text = "\n".join(lines)
    print(text, flush=True)
    (RESULTS / f"{name}.md").write_text(text)
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    draw(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})


def tell(outcome: Mapping[str, Any], out: Path | None) -> None:
    """Print the outcome as JSON and, if asked for, write it to a file, with the load of the machine by then."""
    outcome = {**outcome, "load_at_end": round(os.getloadavg()[0], 2)}
    print(json.dumps(outcome, indent=2))
    if out is not None:
        write_json(out, outcome)


def _cells(values: Any) -> str:
    return "| " + " | ".join(values) + " |"


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
