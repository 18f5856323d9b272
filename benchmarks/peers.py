"""A training step of what people would use instead, against a plain PyTorch loop's: compiled, Lightning, JAX, ours.

All train the same network on the same batches with clipping: first layer, GRU, output layer, dropout, SGD. The plain
loop and what is made from it (`torch.compile`, Lightning) use torch.nn.GRU; JAX the same equations in `lax.scan`, a
jitted step. No tune in a batch of notes starts from the zero state, as torch.nn.GRU cannot reset it. What is not
installed is left out: `pip install jax lightning`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.measuring import interleaved, spread, write

from spectralgru.errors import InputError
from spectralgru.pipeline.experiments.plain_loop import loop as plain
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import width
from spectralgru.training.engine import Engine
from spectralgru.training.memory import reuse_freed_memory
from spectralgru.training.models import initial_weights
from spectralgru.training.precision import check_precision
from spectralgru.training.settings import ModelSettings, Replica

LANES, STEPS, BATCHES = 20, 35, 8
TASKS = {  # corpus: model, learning rate, threshold
    "ptb": (ModelSettings(650, 1), 1.0, 10.0),
    "nottingham": (ModelSettings(200, 2), 0.1, 30.0),
}


def plain_step(corpus, model, rate, threshold, chunks, compiled=False) -> Callable[[], Any]:
    """The plain loop, or its network compiled."""
    network = plain.PlainModel(corpus, model, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    rule, batches = plain.Rule(threshold), cycle(chunks)
    state = network.initial_state(LANES)
    if compiled:
        network.compile()

    def step() -> None:
        nonlocal state
        *_, state = plain.step(network, optimizer, rule, next(batches), state)

    return step


def lightning_epoch(corpus, model, rate, threshold, chunks) -> Callable[[], Any]:
    """An epoch of a Lightning trainer without logging and checkpoints."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = plain.PlainModel(corpus, model, 0)
            self.carried = self.network.initial_state(LANES)

        def training_step(self, batch, index):
            loss, state = self.network.loss(chunks[int(batch)], self.carried)
            self.carried = tuple(s.detach() for s in state)
            return loss / LANES

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=rate)

    loader = torch.utils.data.DataLoader(range(len(chunks)), batch_size=None)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False}
    module = Module()

    def epoch() -> None:
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", gradient_clip_val=threshold, **quiet)
        trainer.fit(module, loader)

    return epoch


def jax_step(corpus, model, rate, threshold, chunks) -> Callable[[], Any]:
    """One jitted function: forward by `lax.scan`, gradient, clipping, SGD."""
    import jax
    from jax import numpy as jnp

    words, layers, hidden = corpus.kind == "words", model.num_layers, model.hidden_size
    size = width(corpus)
    weights = {k: jnp.asarray(v) for k, v in initial_weights(size, hidden, layers, 1.0, 0)}

    def dropped(x, key):
        return x * jax.random.bernoulli(key, 1 - model.dropout, x.shape) / (1 - model.dropout)

    def layer(x, h, w_ih, w_hh):
        inputs = x @ w_ih.T

        def cell(h, i):
            r_z = jax.nn.sigmoid(i[:, : 2 * hidden] + h @ w_hh[: 2 * hidden].T)
            r, z = r_z[:, :hidden], r_z[:, hidden:]
            n = jnp.tanh(i[:, 2 * hidden :] + r * (h @ w_hh[2 * hidden :].T))
            h = z * h + (1 - z) * n
            return h, h

        return jax.lax.scan(cell, h, inputs)

    def loss(w, state, key, inputs, targets, counted):
        keys = jax.random.split(key, layers + 1)
        x = w["input.weight"][inputs] if words else inputs @ w["input.weight"]
        x, last = x * model.input_scale, []
        for i in range(layers):
            h, x = layer(dropped(x, keys[i]), state[i], w[f"gru.weight_ih_l{i}"], w[f"gru.weight_hh_l{i}"])
            last.append(h)
        logits = dropped(x, keys[-1]) @ w["output.weight"].T + w["output.bias"]
        if words:
            each = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
        else:
            each = (jnp.logaddexp(0, logits) - targets * logits).sum(-1)
        return (each * counted).sum() / LANES, jnp.stack(last)

    @partial(jax.jit, donate_argnums=(0,))
    def step(w, state, key, *batch):
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(w, state, key, *batch)
        norm = jnp.sqrt(sum((g**2).sum() for g in grads.values()))
        factor = rate * jnp.minimum(1, threshold / norm)
        return {k: w[k] - factor * grads[k] for k in w}, state, value

    batches = cycle(
        [
            tuple(
                jnp.asarray(t.numpy())
                for t in (
                    c.inputs if words else c.inputs[0],
                    c.targets if words else c.targets[0],
                    c.weights[0],
                )
            )
            for c in chunks
        ]
    )
    state, keys = jnp.zeros((layers, LANES, hidden)), iter(jax.random.split(jax.random.key(0), 100_000))

    def one() -> None:
        nonlocal weights, state
        weights, state, value = step(weights, state, next(keys), *next(batches))
        assert math.isfinite(value)

    return one


def our_step(corpus, model, rate, threshold, chunks, precision="float32") -> Callable[[], Any]:
    """The engine, one run."""
    replica = Replica("clipping", threshold, 0, rate)
    engine = Engine(corpus, model, [replica], LANES, torch.device("cpu"), precision=precision)
    batches = cycle(chunks)
    return lambda: engine.step(next(batches))


def run(device: str, data: Path = Path("data")) -> None:
    """Measure, print and write."""
    reuse_freed_memory()
    rows = []
    for name, (model, rate, threshold) in TASKS.items():
        corpus = load(data / f"prepared/{name}.npz")
        stream = training_stream(corpus, [0], 1, LANES, STEPS, torch.device("cpu"))
        chunks = [replace(stream.chunk(i), starts=None) for i in range(BATCHES)]
        given = (corpus, model, rate, threshold, chunks)
        steps = {
            "plain loop": plain_step(*given),
            "plain loop, torch.compile": plain_step(*given, compiled=True),
            "ours": our_step(*given),
        }
        try:
            check_precision("bfloat16", torch.device("cpu"))
            steps["ours, bfloat16 products"] = our_step(*given, precision="bfloat16")
        except InputError as error:
            print(error)
        if find_spec("jax"):
            steps["JAX, lax.scan, jit"] = jax_step(*given)
        if find_spec("lightning"):
            epoch = lightning_epoch(*given)
            steps["Lightning"] = epoch
        samples = interleaved(steps, repeats=9, seconds=1.0)
        if "Lightning" in samples:
            samples["Lightning"] = [s / BATCHES for s in samples["Lightning"]]
        for variant, seconds in samples.items():
            ratios = [a / b for a, b in zip(samples["plain loop"], seconds, strict=True)]
            rows.append(
                {
                    "task": f"{name} {model.num_layers} x {model.hidden_size}",
                    "variant": variant,
                    "ms a step": 1e3 * median(seconds),
                    "times as fast as the plain loop": median(ratios),
                    "spread": spread(ratios),
                }
            )
            print(rows[-1], flush=True)

    def draw(axes) -> None:
        labels = [f"{row['task']}\n{row['variant']}" for row in rows]
        axes.barh(labels, [row["times as fast as the plain loop"] for row in rows])
        axes.axvline(1, color="black", linewidth=1)
        axes.tick_params(axis="y", labelsize=6)
        axes.set_xlabel("times as fast as the plain loop")

    write("peers", "A training step against what people would use instead", rows, draw, device)
