"""Where a training step's time goes, operation by operation, and how far each is from what the machine can do.

The floor of a product is its floating-point operations at the rate of one large float32 product, measured in the same
run. The floor of everything else is to read and write once the tensors it must touch, at the memory bandwidth of a
copy. The operations are those that PyTorch's profiler sees; the rest of the step is Python and calls. Copies take
longer under the profiler than without it, so the parts may add up to more than the step.
"""

import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import torch
from benchmarks.measuring import interleaved, write
from torch.profiler import ProfilerActivity, profile, record_function

from spectralgru.errors import InputError
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import width
from spectralgru.training.engine import Engine
from spectralgru.training.memory import reuse_freed_memory
from spectralgru.training.precision import check_precision
from spectralgru.training.settings import ModelSettings, Replica

LANES, STEPS, WARM_UP, MEASURED = 20, 35, 6, 12
TASKS = {  # corpus, layers, units, runs, precision: learning rate
    ("ptb", 1, 650, 1, "float32"): 1.0,
    ("ptb", 1, 650, 1, "bfloat16"): 1.0,
    ("nottingham", 1, 200, 1, "float32"): 0.1,
    ("nottingham", 1, 200, 10, "float32"): 0.1,
    ("nottingham", 2, 200, 10, "float32"): 0.1,
}
PARTS = {  # of a step: operations whose own time belongs to it
    "products": ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm", "aten::bmm"),
    "sweeps": ("spectralgru::sweep_forward", "spectralgru::sweep_backward"),
    "softmax and loss": (
        *("spectralgru::softmax_sums", "spectralgru::softmax_gradient"),
        *("aten::exp_", "aten::amax", "aten::sub_", "aten::gather", "aten::scatter_add_", "aten::log"),
        *("aten::binary_cross_entropy_with_logits", "aten::log1p", "aten::exp", "aten::log_sigmoid_forward"),
    ),
    "dropout": ("spectralgru::dropout",),
    "update and norm": (
        "aten::addcmul_",
        "aten::linalg_vector_norm",
        "aten::index_add_",
        "aten::index_copy_",
    ),
}
PROJECTION = "projection"


def product_rate() -> float:
    """Floating-point operations a second of one large float32 product, as the engine calls it."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    call = torch.ops.mkldnn._linear_pointwise
    seconds = interleaved({"product": lambda: call(a, b, None, "none", [], "")})["product"]
    return 2 * 2048**3 / min(seconds)


def bandwidth() -> float:
    """Bytes a second of copying 256 MB, read and written."""
    a = torch.zeros(64 * 2**20)
    b = torch.empty_like(a)
    return 2 * 4 * a.numel() / min(interleaved({"copy": lambda: b.copy_(a)})["copy"])


def floors(
    engine: Engine, words: bool, lanes_steps: int, rate: float, bytes_a_second: float
) -> dict[str, float]:
    """Least seconds of each part, all runs."""
    runs, hidden, layers = engine.model.replicas, engine.model.hidden_size, engine.model.num_layers
    size = engine.model.output["bias"].shape[-1]
    outside = (
        hidden * size * (3 if words else 5)
    )  # first layer and output; the notes themselves need no gradient
    outside += 3 * layers * 3 * hidden**2
    weights = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)  # of the words, only rows
    return {
        # The gradient of W_hh is one product over all steps; the sweeps hold the other two.
        "products": runs * 2 * lanes_steps * (outside + layers * 3 * hidden**2) / rate,
        "sweeps": runs * 2 * lanes_steps * 2 * layers * 3 * hidden**2 / rate,
        "softmax and loss": runs * 4 * lanes_steps * size * 4 / bytes_a_second,
        "dropout": runs * 4 * lanes_steps * hidden * (layers + 1) / bytes_a_second,
        "update and norm": 4 * weights * 3 / bytes_a_second,
    }


def parts_of(engine: Engine, corpus) -> tuple[dict[str, float], float]:
    """Seconds a step of each part, and the step's median without the profiler."""
    stream = training_stream(corpus, [r.seed for r in engine.replicas], 1, LANES, STEPS, torch.device("cpu"))
    chunks = [stream.chunk(i) for i in range(WARM_UP + 2 * MEASURED)]
    seconds = []
    for chunk in chunks[: WARM_UP + MEASURED]:
        begin = time.perf_counter()
        engine.step(chunk)
        seconds.append(time.perf_counter() - begin)
    start, finish = engine.projector.start, engine.projector.finish

    def named(call):
        def wrapped(*arguments):
            with record_function(PROJECTION):
                return call(*arguments)

        return wrapped

    engine.projector.start, engine.projector.finish = named(start), named(finish)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for chunk in chunks[WARM_UP + MEASURED :]:
            engine.step(chunk)
    engine.projector.start, engine.projector.finish = start, finish
    found: dict[str, float] = defaultdict(float)
    for event in profiled.events():
        above = event
        while above is not None and above.name != PROJECTION:
            above = above.cpu_parent
        part = next((name for name, calls in PARTS.items() if event.name in calls), "copies and the rest")
        found[PROJECTION if above is not None else part] += event.self_cpu_time_total / 1e6 / MEASURED
    return found, median(seconds[WARM_UP:])


def run(device: str, data: Path = Path("data")) -> None:
    """Measure, print and write."""
    reuse_freed_memory()
    rate, bytes_a_second = product_rate(), bandwidth()
    rows = []
    for (name, layers, units, runs, precision), learning_rate in TASKS.items():
        try:
            check_precision(precision, torch.device(device))
        except InputError as error:
            print(error)
            continue
        corpus = load(data / f"prepared/{name}.npz")
        replicas = [Replica("constraint", 0.2, seed, learning_rate) for seed in range(runs)]
        model = ModelSettings(units, layers)
        engine = Engine(corpus, model, replicas, LANES, torch.device(device), precision=precision)
        words = corpus.kind == "words"
        assert width(corpus) == engine.model.output["bias"].shape[-1]
        least = floors(engine, words, LANES * STEPS, rate, bytes_a_second)
        found, step = parts_of(engine, corpus)
        found["Python and calls"] = max(0.0, step - sum(found.values()))
        task = f"{name} {layers} x {units}, {runs} runs, {precision}"
        for part in (*PARTS, PROJECTION, "copies and the rest", "Python and calls"):
            rows.append(
                {
                    "task": task,
                    "part": part,
                    "ms": 1e3 * found[part],
                    "share of the step": found[part] / step,
                    "floor ms": 1e3 * least.get(part, 0.0),
                }
            )
        total = sum(least.values())
        rows.append(
            {
                "task": task,
                "part": "step",
                "ms": 1e3 * step,
                "share of the step": 1.0,
                "floor ms": 1e3 * total,
            }
        )
        print(rows[-1], flush=True)

    def draw(axes) -> None:
        tasks = list(dict.fromkeys(row["task"] for row in rows))
        left = [0.0] * len(tasks)
        for part in dict.fromkeys(row["part"] for row in rows if row["part"] != "step"):
            shares = [row["share of the step"] for row in rows if row["part"] == part]
            axes.barh(tasks, shares, left=left, label=part)
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axes.tick_params(axis="y", labelsize=6)
        axes.set_xlabel("share of a step")

    settings = {"GFLOP/s of one large product": rate / 1e9, "GB/s of a copy": bytes_a_second / 1e9}
    write("step_profile", "Where a training step's time goes", rows, draw, device, settings)
