"""The engine on a GPU: its captured step against the same step by step, a CPU, and runs by themselves; the trainer."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the conftest that does this needs more packages
import tiny
from spectralgru.recurrent import fused
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
captured = pytest.mark.skipif(not fused.AVAILABLE, reason="triton is not installed: nothing is captured")

GPU = torch.device("cuda")
LANES, STEPS, COUNT = 6, 10, 8
REPLICAS = tiny.EVERY_METHOD


@pytest.fixture(params=[("ptb", 1), ("chorales", 2)], ids=["words", "notes"])
def case(request, tmp_path):
    name, layers = request.param
    tiny.write_corpora(tmp_path)
    return load(tmp_path / "prepared" / f"{name}.npz"), layers


def engine(case, replicas=REPLICAS, dropout=0.4, device=GPU, capture=True):
    corpus, layers = case
    settings = ModelSettings(42, layers, input_scale=0.5, dropout=dropout)  # 48 inside
    made = Engine(corpus, settings, replicas, LANES, device)
    if not capture:
        made.captured = None
    return made


def chunks(case, replicas=REPLICAS, device=GPU):
    stream = training_stream(case[0], [r.seed for r in replicas], 1, LANES, STEPS, device)
    return [stream.chunk(i) for i in range(COUNT)]


def close(a, b, tolerance):
    assert (a.cpu() - b.cpu()).norm() <= tolerance * b.cpu().norm()


def same_weights(a, b, replica_a, replica_b, tolerance):
    mine, theirs = a.model.weights_of(replica_a), b.model.weights_of(replica_b)
    for name, value in mine.items():
        close(value, theirs[name], tolerance)


@captured
def test_the_captured_step_equals_the_plain_one(case):
    graph, plain = engine(case), engine(case, capture=False)
    for index, chunk in enumerate(chunks(case)):
        if index == 5:
            for one in (graph, plain):
                one.start_epoch()
                one.rate[0] = 0.2
        for a, b in zip(graph.step(chunk), plain.step(chunk), strict=True):
            close(a, b, 1e-4)
    assert graph.captured.graph is not None
    for replica in range(4):
        same_weights(graph, plain, replica, replica, 1e-3)
    close(graph.state, plain.state, 1e-3)
    assert torch.equal(graph.projector.projected, plain.projector.projected)
    assert torch.equal(graph.drawn, plain.drawn)
    first = graph.captured
    for one in (graph, plain):
        one.keep([3, 1])
    assert graph.captured is not first
    rest = (REPLICAS[3], REPLICAS[1])
    for chunk in chunks(case, rest)[:4]:  # two are not captured; on notes, small differences grow fast
        for a, b in zip(graph.step(chunk), plain.step(chunk), strict=True):
            close(a, b, 1e-3)
    assert graph.captured.graph is not None


@captured
def test_another_shape_is_not_captured_and_does_not_disturb_the_graph(case):
    graph, plain = engine(case), engine(case, capture=False)
    stream = training_stream(case[0], [r.seed for r in REPLICAS], 1, LANES, STEPS - 3, GPU)
    parts = chunks(case)
    for chunk in [*parts[:4], stream.chunk(0), *parts[4:]]:
        for a, b in zip(graph.step(chunk), plain.step(chunk), strict=True):
            close(a, b, 1e-3)
        close(graph.projector.sigma_max, plain.projector.sigma_max, 1e-3)
        assert torch.equal(graph.projector.projected, plain.projector.projected)
    assert graph.captured.graph is not None


def test_a_step_never_waits_for_the_device(case):
    one = engine(case, capture=False)
    first, second, *_ = chunks(case)
    one.step(first)
    torch.cuda.set_sync_debug_mode("error")
    try:
        one.advance(second)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_equals_a_cpu(case):
    cpu = torch.device("cpu")
    gpu, plain = engine(case, dropout=0.0), engine(case, dropout=0.0, device=cpu)
    for here, there in zip(chunks(case), chunks(case, device=cpu), strict=True):
        for a, b in zip(gpu.step(here), plain.step(there), strict=True):
            close(a, b, 1e-3)
        close(gpu.projector.sigma_max, plain.projector.sigma_max, 1e-2)
        close(gpu.spectral_radius(), plain.spectral_radius(), 1e-3)


def test_a_replica_does_not_depend_on_its_company(case):
    together, alone = engine(case), engine(case, REPLICAS[2:3])
    for shared, single in zip(chunks(case), chunks(case, REPLICAS[2:3]), strict=True):
        loss, norm = together.step(shared)
        own_loss, own_norm = alone.step(single)
        close(loss[2:3], own_loss, 1e-4)
        close(norm[2:3], own_norm, 1e-3)
    same_weights(together, alone, 2, 0, 1e-3)


def test_a_diverging_replica_does_not_disturb_the_others(case):
    wild = tiny.replica("constraint", 0.2, 2, 1e30)
    replicas = (*REPLICAS[:2], wild, REPLICAS[3])
    calm, disturbed = engine(case), engine(case, replicas)
    for chunk in chunks(case):
        calm.step(chunk)
        loss, _ = disturbed.step(chunk)
    assert not loss[2].isfinite()
    assert disturbed.projector.sigma_max[2].isnan()
    for replica in (0, 1, 3):
        same_weights(calm, disturbed, replica, replica, 1e-3)


def test_no_singular_value_is_ever_above_the_bound(case):
    one = engine(case)
    for chunk in chunks(case):
        one.step(chunk)
        for layer in range(case[1]):
            sigma = torch.linalg.svdvals(one.model.recurrent(layer).cpu().double())[:, 0]
            assert (sigma <= one.projector.max_sv.cpu().double() * (1 + 1e-6)).all()


def test_a_checkpoint_goes_on_where_it_was(case, tmp_path):
    one, *parts = engine(case), *chunks(case)
    for chunk in parts[:5]:
        one.step(chunk)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    restored = engine(case)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True))
    for replica in range(4):
        same_weights(one, restored, replica, replica, 0)
    for a, b in pairwise([one.projector.batch.basis, restored.projector.batch.basis]):
        assert torch.equal(a, b)
    for chunk in parts[5:]:
        for a, b in zip(one.step(chunk), restored.step(chunk), strict=True):
            close(a, b, 1e-4)


@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
def test_the_trainer_finishes_and_does_nothing_the_second_time(corpus, tmp_path):
    tiny.write_corpora(tmp_path / "data")
    replicas = (tiny.replica("constraint", 0.2, 0, 0.1), tiny.replica("none", None, 0, 0.1))
    command = tiny.command(tiny.job(corpus, replicas), tmp_path, "--device", "cuda")
    done = tiny.run(command)
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("results/runs/*/*/*/run.json"))]
    assert [r["status"] for r in records] == ["finished", "finished"]
    assert records[0]["spectrum"]["final"][0][0] <= 1.8 * (1 + 1e-6)
    before = tiny.outcome(tmp_path / "results")
    assert tiny.run(command).returncode == 0
    assert tiny.outcome(tmp_path / "results") == before
