"""The replica engine against the paper's equations, written plainly in float64, and one replica against many."""

from collections.abc import Callable

import numpy as np
import philox
import pytest
import torch
from torch import Tensor

import tiny
from spectralgru.training.batches import Chunk, evaluation_stream, training_stream
from spectralgru.training.data.dataset import Corpus, load
from spectralgru.training.data.loading import width
from spectralgru.training.engine import Engine
from spectralgru.training.evaluate import evaluate
from spectralgru.training.models import initial_weights
from spectralgru.training.settings import ModelSettings, Replica

CPU = torch.device("cpu")
LANES, STEPS = 6, 10
REPLICAS = tiny.EVERY_METHOD


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    data = tmp_path_factory.mktemp("data")
    tiny.write_corpora(data)
    return {name: load(data / "prepared" / f"{name}.npz") for name in ("ptb", "chorales")}


def model_settings(layers: int, dropout: float) -> ModelSettings:
    return ModelSettings(12, layers, input_scale=0.5, dropout=dropout)


class Oracle:
    """One replica in float64: the equations step by step, torch's autograd, SVD, norm and clip as defined."""

    def __init__(self, corpus: Corpus, settings: ModelSettings, replica: Replica) -> None:
        self.kind, self.settings, self.replica = corpus.kind, settings, replica
        shape = (width(corpus), settings.hidden_size, settings.num_layers)
        self.w = {
            name: torch.from_numpy(value).double()
            for name, value in initial_weights(*shape, settings.init_scale, replica.seed)
        }
        self.project()
        self.state = [torch.zeros(LANES, settings.hidden_size).double() for _ in range(settings.num_layers)]
        self.steps = 0

    def layer(self, x: Tensor, h: Tensor, starts: Tensor | None, layer: int) -> tuple[Tensor, Tensor]:
        w_r, w_z, w_n = self.w[f"gru.weight_ih_l{layer}"].chunk(3)
        u_r, u_z, u_n = self.w[f"gru.weight_hh_l{layer}"].chunk(3)
        outputs = []
        for t in range(len(x)):
            if starts is not None:
                h = torch.where(starts[t, :, None], torch.zeros_like(h), h)
            r = torch.sigmoid(x[t] @ w_r.T + h @ u_r.T)
            z = torch.sigmoid(x[t] @ w_z.T + h @ u_z.T)
            n = torch.tanh(x[t] @ w_n.T + (r * h) @ u_n.T)
            h = z * h + (1 - z) * n
            outputs.append(h)
        return torch.stack(outputs), h

    def loss(
        self, inputs: Tensor, targets: Tensor, weights: Tensor, starts: Tensor | None, masks: Tensor | None
    ) -> Tensor:
        """Summed loss; moves the state on."""
        x = (
            self.w["input.weight"][inputs]
            if self.kind == "words"
            else inputs.double() @ self.w["input.weight"]
        )
        x = x * self.settings.input_scale
        for layer in range(self.settings.num_layers):
            x = x if masks is None else x * masks[layer]
            x, self.state[layer] = self.layer(x, self.state[layer], starts, layer)
        x = x if masks is None else x * masks[-1]
        logits = x @ self.w["output.weight"].T + self.w["output.bias"]
        if self.kind == "words":
            each = -logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        else:
            p = torch.sigmoid(logits)
            each = -(targets * p.log() + (1 - targets) * (1 - p).log()).sum(-1)
        return (each * weights).sum()

    def step(self, chunk: Chunk, index: int) -> tuple[float, float]:
        keep, h = 1 - self.settings.dropout, self.settings.hidden_size
        shape = (self.settings.num_layers + 1, STEPS, LANES, h)
        masks = philox.masks(self.replica.seed, self.steps, shape, keep) if keep < 1 else None
        self.steps += 1
        for value in self.w.values():
            value.requires_grad_(True)
        words = self.kind == "words"
        inputs, targets = (t if words else t[index] for t in (chunk.inputs, chunk.targets))
        starts = None if chunk.starts is None else chunk.starts[index]
        loss = self.loss(inputs, targets, chunk.weights[0], starts, masks)
        gradients = torch.autograd.grad(loss / LANES, list(self.w.values()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        threshold = self.replica.value if self.replica.method == "clipping" else float("inf")
        scale = self.replica.learning_rate * min(1.0, threshold / float(norm))
        self.w = {
            name: (value - scale * g).detach()
            for (name, value), g in zip(self.w.items(), gradients, strict=True)
        }
        self.state = [h.detach() for h in self.state]
        self.project()
        return float(loss.detach()), float(norm)

    def project(self) -> None:
        if self.replica.method != "constraint":
            return
        h, bound = self.settings.hidden_size, 2 - self.replica.value
        for layer in range(self.settings.num_layers):
            weight = self.w[f"gru.weight_hh_l{layer}"]
            u, s, v = torch.linalg.svd(weight[2 * h :])
            weight[2 * h :] = u @ s.clamp(max=bound).diag() @ v


def chunks(corpus: Corpus, replicas: tuple[Replica, ...], count: int) -> list[Chunk]:
    stream = training_stream(corpus, [r.seed for r in replicas], 1, LANES, STEPS, CPU)
    return [stream.chunk(i) for i in range(count)]


@pytest.mark.parametrize("name", ["ptb", "chorales"])
@pytest.mark.parametrize(("layers", "dropout"), [(1, 0.0), (2, 0.4)])
def test_steps_equal_the_equations_in_float64(
    corpora: dict[str, Corpus], name: str, layers: int, dropout: float
) -> None:
    corpus, settings = corpora[name], model_settings(layers, dropout)
    engine = Engine(corpus, settings, REPLICAS, LANES, CPU)
    oracles = [Oracle(corpus, settings, r) for r in REPLICAS]
    clipped = projected = False
    for chunk in chunks(corpus, REPLICAS, 4):
        loss, norm = engine.step(chunk)
        projected |= bool(engine.projector.saturated[3])
        for i, oracle in enumerate(oracles):
            expected_loss, expected_norm = oracle.step(chunk, i)
            clipped |= oracle.replica.method == "clipping" and expected_norm > 0.5
            assert float(loss[i]) == pytest.approx(expected_loss, rel=2e-5)
            assert float(norm[i]) == pytest.approx(expected_norm, rel=2e-4)
    assert clipped
    assert projected
    for i, oracle in enumerate(oracles):
        for key, value in engine.model.weights_of(i).items():
            torch.testing.assert_close(value.double(), oracle.w[key], rtol=1e-4, atol=2e-5)
        for layer, h in enumerate(oracle.state):
            torch.testing.assert_close(engine.state[i, layer].double(), h, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["ptb", "chorales"])
def test_evaluation_equals_the_equations_over_whole_sequences(corpora: dict[str, Corpus], name: str) -> None:
    """Every tune by itself from a zero state; the words of each lane from a zero state."""
    corpus, settings = corpora[name], model_settings(2, 0.3)
    engine = Engine(corpus, settings, REPLICAS[:2], LANES, CPU)
    found = evaluate(engine.model, evaluation_stream(corpus, "valid", LANES, STEPS, CPU))
    for i, replica in enumerate(REPLICAS[:2]):
        oracle = Oracle(corpus, settings, replica)
        if corpus.kind == "words":
            tokens = torch.from_numpy(corpus.valid).long()
            per_lane = -(-(len(tokens) - 1) // LANES)
            sequences = [(tokens[a : a + per_lane + 1]) for a in range(0, len(tokens) - 1, per_lane)]
            pairs = [(s[:-1, None], s[1:, None]) for s in sequences]
        else:
            rolls = [torch.from_numpy(tune).double()[:, None] for tune in corpus.tunes("valid")]
            pairs = [(torch.cat([torch.zeros_like(roll[:1]), roll[:-1]]), roll) for roll in rolls]
        total, count = 0.0, 0
        for inputs, targets in pairs:
            oracle.state = [torch.zeros(1, settings.hidden_size).double() for _ in oracle.state]
            total += float(oracle.loss(inputs, targets, torch.ones(targets.shape[:2]), None, None).detach())
            count += len(targets)
        assert float(found[i]) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("name", ["ptb", "chorales"])
@pytest.mark.parametrize("company", [2, 3, 5])
def test_a_replica_s_bits_do_not_depend_on_its_company(
    corpora: dict[str, Corpus], name: str, company: int
) -> None:
    corpus, settings = corpora[name], model_settings(2, 0.4)
    replicas = (REPLICAS + REPLICAS)[:company]
    together = Engine(corpus, settings, replicas, LANES, CPU)
    alone = Engine(corpus, settings, replicas[1:2], LANES, CPU)
    theirs, own = (chunks(corpus, some, 8) for some in (replicas, replicas[1:2]))
    for shared, single in zip(theirs, own, strict=True):
        for all_of_them, one in zip(together.step(shared), alone.step(single), strict=True):
            assert torch.equal(all_of_them[1:2], one)
    for key, value in alone.model.weights_of(0).items():
        assert (together.model.weights_of(1)[key] == value).all(), key
    valid = evaluation_stream(corpus, "valid", LANES, STEPS, CPU)
    assert torch.equal(evaluate(together.model, valid)[1:2], evaluate(alone.model, valid))


@pytest.mark.parametrize("name", ["ptb", "chorales"])
def test_a_diverging_replica_does_not_disturb_the_others(corpora: dict[str, Corpus], name: str) -> None:
    corpus, settings = corpora[name], model_settings(2, 0.4)
    wild = tiny.replica("none", None, 2, 1e30)
    calm = Engine(corpus, settings, REPLICAS, LANES, CPU)
    disturbed = Engine(corpus, settings, (*REPLICAS[:2], wild, REPLICAS[3]), LANES, CPU)
    for chunk in chunks(corpus, REPLICAS, 5):
        calm.step(chunk)
        loss, _ = disturbed.step(chunk)
    assert not torch.isfinite(loss[2])
    for i in (0, 1, 3):
        for key, value in calm.model.weights_of(i).items():
            assert (disturbed.model.weights_of(i)[key] == value).all()
    disturbed.keep([0, 1, 3])
    calm.keep([0, 1, 3])
    a, b = (
        engine.step(c)[0]
        for engine, c in zip(
            (calm, disturbed), chunks(corpus, REPLICAS[:2] + REPLICAS[3:], 2)[1:] * 2, strict=True
        )
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize("delta", [0.2, 1.4])
def test_no_singular_value_is_ever_above_the_bound(corpora: dict[str, Corpus], delta: float) -> None:
    replica = tiny.replica("constraint", delta, 0, 2.0)
    engine = Engine(corpora["chorales"], model_settings(2, 0.2), [replica], LANES, CPU)
    saturated = 0
    for chunk in chunks(corpora["chorales"], (replica,), 12):
        engine.step(chunk)
        saturated += int(engine.projector.saturated)
        for layer in range(2):
            sigma = torch.linalg.svdvals(engine.model.recurrent(layer)[0].double())
            assert float(sigma[0]) <= (2 - delta) * (1 + 1e-6)
        assert float(engine.projector.sigma_max) <= (2 - delta) * (1 + 1e-6)
    assert saturated > 0


@pytest.mark.parametrize("form", [lambda engine: engine, tiny.batched])
def test_gates_of_constrained_runs_alone_are_bounded(
    corpora: dict[str, Corpus], form: Callable[[Engine], Engine]
) -> None:
    replicas = tuple(tiny.replica(r.method, r.value, r.seed, 2.0) for r in REPLICAS)
    corpus, settings = corpora["chorales"], model_settings(2, 0.2)
    free = Engine(corpus, settings, replicas, LANES, CPU)
    bounded = form(Engine(corpus, settings, replicas, LANES, CPU, gates=0.7))
    largest = torch.zeros(2, len(replicas))
    for chunk in chunks(corpus, replicas, 6):
        for at, engine in enumerate((free, bounded)):
            engine.step(chunk)
            sigma = torch.stack([torch.linalg.matrix_norm(w, 2) for w in engine._matrices((0, 1))]).amax(0)
            largest[at] = torch.maximum(largest[at], sigma)
    constrained = torch.tensor([r.method == "constraint" for r in replicas])
    assert (largest[1][constrained] <= 0.7 * (1 + 1e-6)).all()
    assert (largest[0] > 0.8).all()
    for i in torch.nonzero(~constrained).flatten().tolist():
        theirs = free.model.weights_of(i).items()
        assert all(torch.equal(value, bounded.model.weights_of(i)[name]) for name, value in theirs)
    restored = form(Engine(corpus, settings, replicas, LANES, CPU, gates=0.7))
    restored.load_state_dict(bounded.state_dict())
    kept = [int(i) for i in torch.nonzero(constrained).flatten()][::-1]
    for engine in (bounded, restored):
        engine.keep(kept)
    (chunk,) = chunks(corpus, tuple(replicas[i] for i in kept), 1)
    assert torch.equal(bounded.step(chunk)[0], restored.step(chunk)[0])
    assert all(
        torch.equal(a, b) for a, b in zip(*(e._matrices((0, 1)) for e in (bounded, restored)), strict=True)
    )


def test_state_survives_a_checkpoint(corpora: dict[str, Corpus]) -> None:
    corpus, settings = corpora["ptb"], model_settings(1, 0.4)
    first, second, third = chunks(corpus, REPLICAS, 3)
    engine = Engine(corpus, settings, REPLICAS, LANES, CPU)
    engine.step(first)
    engine.step(second)
    restored = Engine(corpus, settings, REPLICAS, LANES, CPU)
    restored.load_state_dict(engine.state_dict())
    for a, b in zip(engine.step(third), restored.step(third), strict=True):
        assert torch.equal(a, b)


def test_start_weights_are_made_once_a_seed(
    corpora: dict[str, Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decomposition of 650 x 650 takes seconds, and all settings of a seed start from the same."""
    svd, calls = np.linalg.svd, []
    monkeypatch.setattr(np.linalg, "svd", lambda *given: calls.append(given) or svd(*given))
    replicas = [tiny.replica("clipping", 5.0, seed) for seed in (0, 1, 0, 0)]
    engine = Engine(corpora["ptb"], ModelSettings(8, 2), replicas, 6, CPU)
    assert len(calls) == 2 * 2
    for name, weight in engine.model.weights_of(0).items():
        assert torch.equal(weight, engine.model.weights_of(3)[name])
        assert name == "output.bias" or not torch.equal(weight, engine.model.weights_of(1)[name])


def test_singular_values_are_exact_and_of_every_run(corpora: dict[str, Corpus]) -> None:
    engine = Engine(corpora["ptb"], ModelSettings(40, 2), tiny.EVERY_METHOD, 6, CPU)
    for repeated in (True, False):  # all of them equal, as at the start
        found = torch.tensor(engine.singular_values([3, 0]), dtype=torch.float64)
        for layer in range(2):
            for at, replica in enumerate((3, 0)):
                exact = np.linalg.svd(engine.model.recurrent(layer)[replica].double().numpy())[1]
                np.testing.assert_allclose(found[at, layer], exact, rtol=1e-12)
                assert (np.ptp(exact) < 1e-5) == repeated
            engine.model.recurrent(layer).add_(torch.randn(4, 40, 40))
