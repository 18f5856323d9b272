"""On a GPU: the GRU against cuDNN's, and the constrained training step against the clipped one at every delta.

    python benchmarks/gpu.py --out gpu.json

Medians of interleaved samples, timed with CUDA events; torch and numpy only; data/prepared must be there. Layers are
compared in equal precision, float32 and TF32; steps are of the paper's networks (params.yaml), in float32. They have
done `--warm` steps: the spectrum of W_hh is then still nearly flat, the dearest case for delta 1.1 and 1.4. "share
clipped as a whole" says how often the few leading singular values were not enough.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from spectralgru.recurrent import sweeps
from spectralgru.recurrent.gru import gru_layer
from spectralgru.recurrent.sweeps import Inputs
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings, Replica

DELTAS = (0.2, 0.5, 0.8, 1.1, 1.4)
PRECISIONS = ("float32", "tf32")


def set_precision(name: str) -> None:
    """One precision for products of any library: cuDNN uses TF32 unless told otherwise, cuBLAS does not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"


def measure(
    functions: dict[str, Callable[[], object]], repeats: int, calls: int
) -> dict[str, dict[str, float]]:
    """Milliseconds a call: median and spread of `repeats` interleaved samples of `calls` calls."""
    for function in functions.values():
        for _ in range(5):
            function()
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(calls):
                function()
            end.record()
            end.synchronize()
            samples[name].append(begin.elapsed_time(end) / calls)
    return {
        name: {"ms": round(statistics.median(v), 4), "spread": round(max(v) / min(v) - 1, 3)}
        for name, v in samples.items()
    }


def captured(function: Callable[[], object]) -> Callable[[], object]:
    """The same work as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        function()
    return graph.replay


def layer(replicas: int, steps: int, batch: int, hidden: int, precision: str, repeats: int) -> dict:
    set_precision(precision)
    x = torch.randn(replicas, steps, batch, hidden, device="cuda", requires_grad=True)
    grad = torch.randn(replicas, steps, batch, hidden, device="cuda")
    theirs = torch.nn.GRU(hidden, hidden, bias=False, device="cuda")
    weights = [w.detach().expand(replicas, -1, -1).clone().requires_grad_() for w in theirs.parameters()]
    one = x[0].detach().requires_grad_()

    def cudnn() -> None:
        torch.autograd.grad(theirs(one)[0], [one, *theirs.parameters()], grad[0])

    def ours(reset: str) -> Callable[[], object]:
        return lambda: torch.autograd.grad(gru_layer(x, None, *weights, reset=reset)[0], [x, *weights], grad)

    inputs = Inputs(x.detach(), x.new_zeros(replicas, batch, hidden), *(w.detach() for w in weights), None)

    def unfused() -> None:
        sweeps.backward(grad, inputs, sweeps.forward(inputs, True), True, True)

    functions = {
        "cudnn, one network": cudnn,
        "before, PyTorch's operators, captured": captured(unfused),
        "before, eager": ours("before"),
        "before, captured": captured(ours("before")),
        "after, captured": captured(ours("after")),
    }
    found = measure(functions, repeats, 10)
    ratio = replicas * found["cudnn, one network"]["ms"] / found["before, captured"]["ms"]
    return {
        "shape": [replicas, steps, batch, hidden],
        "precision": precision,
        "times": found,
        "throughput of before over cudnn": round(ratio, 2),
    }


def training(name: str, data: Path, per_setting: int, warm: int, repeats: int) -> dict:
    """Milliseconds a step, `per_setting` replicas of one setting at a time."""
    set_precision("float32")
    corpus = load(data / "prepared" / f"{name}.npz")
    if name == "ptb":
        model, rate, threshold = ModelSettings(650), 1.0, 10.0
    else:
        model, rate, threshold = ModelSettings(200), 0.1, 30.0
    settings: dict[str, tuple] = {"clipping": ("clipping", threshold)}
    settings |= {f"delta {d}": ("constraint", d) for d in DELTAS}
    device, functions, unproven = torch.device("cuda"), {}, {}
    for label, (method, value) in settings.items():
        replicas = [Replica(method, value, seed, rate) for seed in range(per_setting)]
        engine = Engine(corpus, model, replicas, 20, device)
        stream = training_stream(corpus, range(per_setting), 1, 20, 35, device)
        left = []
        for index in range(warm):
            engine.step(stream.chunk(index))
            left.append(float(len(engine.projector.batch.unproven())) / (per_setting * model.num_layers))
        unproven[label] = round(statistics.mean(left[-warm // 2 :]), 3)
        ahead = itertools.cycle([stream.chunk(warm + i) for i in range(10)])
        functions[label] = lambda engine=engine, ahead=ahead: engine.step(next(ahead))
    found = measure(functions, repeats, 5)
    return {
        "network": name,
        "replicas": per_setting,
        "times": found,
        "share clipped as a whole": unproven,
        "over clipped": {n: round(v["ms"] / found["clipping"]["ms"] - 1, 3) for n, v in found.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warm", type=int, default=40, help="training steps before a step is timed")
    parser.add_argument("--replicas", type=int, default=10, help="of one setting")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch sees no CUDA device", file=sys.stderr)
        return 2
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}
    report: dict = {"machine": machine, "layers": [], "training": []}
    shapes = ((1, 35, 20, 650), (20, 35, 20, 650), (1, 35, 20, 200), (100, 35, 20, 200))
    for shape, precision in itertools.product(shapes, PRECISIONS):
        report["layers"].append(layer(*shape, precision, options.repeats))
        print(json.dumps(report["layers"][-1]), flush=True)
    for name in ("nottingham", "ptb"):
        report["training"].append(
            training(name, options.data, options.replicas, options.warm, options.repeats)
        )
        print(json.dumps(report["training"][-1]), flush=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
