"""One GRU layer, forward and backward, against torch.nn.GRU(bias=False): python benchmarks/gru_layer.py --help

Interleaved runs, medians; with one thread the clock is the process' CPU time, which other programs on the machine
disturb least. GFLOP/s count the twelve H x H products a step and sequence costs forward and backward, and their rate
is compared with that of torch.mm and of this package's product on one large matrix in the same run.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from spectralgru.gru import gru_layer
from spectralgru.kernels.products import matmul

SHAPES = [
    (1, 35, 20, 650),
    (1, 35, 20, 200),
    (1, 200, 16, 200),
    (3, 35, 20, 128),
    (3, 35, 20, 100),
    (10, 35, 20, 200),
]


def measure(functions: dict, repeats: int, seconds: float) -> dict[str, list[float]]:
    """Seconds per call of each function, `repeats` samples of about `seconds`, taken in turn."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    counts = {}
    for name, function in functions.items():
        function()
        begin = clock()
        function()
        counts[name] = max(1, round(seconds / (clock() - begin)))
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            begin = clock()
            for _ in range(counts[name]):
                function()
            samples[name].append((clock() - begin) / counts[name])
    return samples


def case(replicas: int, steps: int, batch: int, hidden: int, repeats: int, seconds: float) -> dict:
    x = torch.randn(replicas, steps, batch, hidden, requires_grad=True)
    grad = torch.randn(replicas, steps, batch, hidden)
    theirs = [torch.nn.GRU(hidden, hidden, bias=False) for _ in range(replicas)]
    weights = [
        torch.stack(w).detach().requires_grad_() for w in zip(*(g.parameters() for g in theirs), strict=True)
    ]

    def torch_gru() -> None:
        for i, gru in enumerate(theirs):
            torch.autograd.grad(gru(x[i])[0], [x, *gru.parameters()], grad[i])

    def ours(reset: str) -> None:
        torch.autograd.grad(gru_layer(x, None, *weights, reset=reset)[0], [x, *weights], grad)

    a, b = torch.randn(700, hidden), torch.randn(hidden, 3 * hidden)
    samples = measure(
        {
            "torch.nn.GRU": torch_gru,
            "before": lambda: ours("before"),
            "after": lambda: ours("after"),
            "torch.mm": lambda: torch.mm(a, b),
            "matmul": lambda: matmul(a, b),
        },
        repeats,
        seconds,
    )
    medians = {name: statistics.median(values) for name, values in samples.items()}
    products, layer = 2 * 700 * 3 * hidden**2, 2 * 3 * 2 * 3 * replicas * steps * batch * hidden**2
    return {
        "replicas": replicas,
        "steps": steps,
        "batch": batch,
        "hidden": hidden,
        "milliseconds": {name: round(1e3 * value, 3) for name, value in medians.items()},
        "spread": {name: round(max(v) / min(v) - 1, 3) for name, v in samples.items()},
        "speedup_before": round(medians["torch.nn.GRU"] / medians["before"], 3),
        "speedup_after": round(medians["torch.nn.GRU"] / medians["after"], 3),
        "gflops": {
            "before": round(layer / medians["before"] / 1e9, 1),
            "torch.mm": round(products / medians["torch.mm"] / 1e9, 1),
            "matmul": round(products / medians["matmul"] / 1e9, 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="per sample")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    print("  R    T   B    H  nn.GRU ms  before ms  speedup  after  GFLOP/s     mm  matmul")
    for shape in SHAPES:
        row = case(*shape, options.repeats, options.seconds)
        rows.append(row)
        ms, rate = row["milliseconds"], row["gflops"]
        sizes = f"{shape[0]:>3} {shape[1]:>4} {shape[2]:>3} {shape[3]:>4}"
        times = f"{ms['torch.nn.GRU']:>10.2f} {ms['before']:>10.2f}"
        ratios = f"{row['speedup_before']:>8.2f} {row['speedup_after']:>6.2f}"
        rates = f"{rate['before']:>8.0f} {rate['torch.mm']:>6.0f} {rate['matmul']:>7.0f}"
        print(sizes, times, ratios, rates, flush=True)
    if options.out:
        machine = {"processor": platform.processor() or platform.machine(), "threads": options.threads}
        machine |= {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
        options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
