"""The autopsy names what was planted, and its numbers are those of autograd."""

import copy

import planted
import pytest
import torch
from planted import Net, bad_inputs, bad_targets, batch, scaled, too_high_a_rate, trained
from torch import nn

from spectralgru import GRU, SpectralConstraint
from spectralgru.diagnosis.autopsy import autopsy
from spectralgru.diagnosis.recording import Recording
from spectralgru.errors import InputError

CAUSES = {
    ("GRU", "update gate"): scaled(1, 100.0),
    ("GRU", "candidate"): scaled(2, 20.0),
    ("GRU", "layer"): too_high_a_rate,
    ("GRU", "batch"): bad_targets,
    ("LSTM", "output gate"): scaled(3, 200.0),
    ("LSTM", "candidate"): scaled(2, 20.0),
    ("LSTM", "layer"): too_high_a_rate,
    ("LSTM", "batch"): bad_inputs,
    ("RNN", "recurrence"): scaled(0, 6.0),
}


@pytest.mark.parametrize(("kind", "cause"), CAUSES)
def test_a_planted_cause_is_named_from_the_file_alone(tmp_path, kind, cause):
    _, _, recorder = trained(tmp_path, kind, CAUSES[kind, cause])
    (path,) = recorder.files
    found = autopsy(None, path)
    assert found.cause.kind == cause
    where = {"layer": "out", "batch": ""}.get(cause, "rnn.weight_hh_l0")
    assert found.cause.where == where
    if where.startswith("rnn"):
        assert found.worst.growth > 10
        assert found.cuts["all"][1] == 1.0
        assert found.cuts[cause][1] < found.worst.growth / 2
        assert found.worst.sigma[cause] > 2
    text = str(found)
    assert found.cause.words in text
    assert found.reason in text


def test_with_the_model_and_its_loss_it_is_the_recorded_step(tmp_path):
    _, _, recorder = trained(tmp_path, "GRU", scaled(2, 20.0))
    recording = Recording.read(recorder.files[0])
    before = random_before = torch.get_rng_state()
    fresh = Net("GRU")
    torch.set_rng_state(before)
    state = copy.deepcopy(fresh.state_dict())
    found = autopsy(fresh, recording, lambda output, target: (output - target).square().mean())
    assert found.norm == pytest.approx(recording.ring[-1]["norm"], rel=1e-4)
    assert found.loss == pytest.approx(recording.ring[-1]["loss"], rel=1e-5)
    assert found.cause.kind == "candidate"
    remedies = {row["remedy"]: row for row in found.remedies}
    as_it_was = remedies["as it was"]
    assert remedies["constraint, delta 0.2"]["norm"] < as_it_was["norm"] / 5
    lower = remedies["a tenth of the learning rate"]
    assert lower["norm"] == as_it_was["norm"]
    assert lower["loss after"] != as_it_was["loss after"]
    # Nothing of the model and the generators has changed.
    assert all(torch.equal(state[name], value) for name, value in fresh.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_before)
    assert all(p.grad is None for p in fresh.parameters())


def test_a_batch_without_a_recording(tmp_path):
    torch.manual_seed(0)
    model, (x, y) = Net("GRU"), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with torch.no_grad():
        scaled(2, 30.0)(model)
    found = autopsy(model, x, lambda output: (output - y).square().mean(), optimizer=optimizer)
    assert found.cause.kind == "candidate"
    assert {"norm after", "loss after"} <= found.remedies[0].keys()
    found.figure(tmp_path / "autopsy.svg")
    assert "<svg" in (tmp_path / "autopsy.svg").read_text()


def test_the_norms_with_a_path_cut_are_those_of_the_equations_with_the_state_detached():
    torch.manual_seed(0)
    gru, (x, _) = GRU(4, 8), batch()
    gru, x = gru.double(), x.double()
    found = autopsy(gru, (x,), lambda output: output[0].square().sum())
    weights = [w.detach().clone().requires_grad_() for w in (gru.weight_ih_l0, gru.weight_hh_l0)]
    (w_r, w_z, w_n), (u_r, u_z, u_n) = (w.chunk(3) for w in weights)
    h, loss = torch.zeros(8, 8).double(), 0.0
    for x_t in x:
        r = torch.sigmoid(x_t @ w_r.T + h @ u_r.T)
        z = torch.sigmoid(x_t @ w_z.T + h.detach() @ u_z.T)
        h = z * h + (1 - z) * torch.tanh(x_t @ w_n.T + (r * h) @ u_n.T)
        loss = loss + h.square().sum()
    gradients = torch.autograd.grad(loss, weights)
    norm = torch.stack([g.norm() for g in gradients]).norm().item()
    assert found.cuts["update gate"][0] == pytest.approx(norm, rel=1e-10)
    assert found.norm != pytest.approx(norm, rel=1e-3)


class Two(nn.Module):
    """Two layers of which one explodes."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 16, 2, bidirectional=True)
        self.out = nn.Linear(32, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


def test_the_layer_direction_and_lane_are_found():
    torch.manual_seed(0)
    model, (x, y) = Two(), batch()
    with torch.no_grad():
        model.rnn.weight_hh_l1_reverse[32:48] *= 30
    weight = torch.ones(8)
    weight[5] = 1e3
    found = autopsy(model, x, lambda output: ((output - y)[..., 0] * weight).square().mean())
    assert found.worst.weight == found.cause.where == "rnn.weight_hh_l1_reverse"
    assert found.worst.lane == 5
    assert found.worst.first > found.worst.last  # backward in time is forward in a reverse layer's
    assert len(found.layers) == 4


def test_what_is_not_finite_is_named():
    torch.manual_seed(0)
    model, (x, y) = Net("GRU"), batch()
    with torch.no_grad():
        model.out.weight[0, 0] = torch.nan
    assert autopsy(model, x, lambda o: (o - y).square().mean()).cause.where == "out.weight"


def test_what_overflows_in_its_own_type_is_repeated_in_float64():
    torch.manual_seed(0)
    model, (x, _) = Net("RNN", nonlinearity="relu"), batch()
    with torch.no_grad():
        model.rnn.weight_hh_l0 *= 30
    found = autopsy(model, x.repeat(5, 1, 1), lambda o: o.square().mean())
    assert found.norm > 1e38
    assert found.cause.kind == "recurrence"
    assert "float64" in found.remarks[0]


def test_constrained_weights_leave_nothing_to_find():
    torch.manual_seed(0)
    model, (x, y) = Net("GRU", bias=False), batch()
    SpectralConstraint(model)
    assert autopsy(model, x, lambda o: (o - y).square().mean()).cause.kind == "unknown"


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (None, torch.zeros(3), "a batch needs its model"),
        (nn.Linear(3, 1), torch.zeros(3), "ran no GRU, LSTM"),
        (Net("GRU"), torch.zeros(20, 8, 4), r"the loss is a tensor \[20, 8, 1\]"),
    ],
)
def test_what_cannot_be_repeated_is_said(model, given, message):
    with pytest.raises(InputError, match=message):
        autopsy(model, given)


def test_another_model_than_the_recorded_one_is_refused(tmp_path):
    _, _, recorder = trained(tmp_path, "GRU", scaled(2, 20.0))
    with pytest.raises(InputError, match=r"not the recorded one: rnn\.weight_ih_l0 differs"):
        autopsy(Net("LSTM"), recorder.files[0])


def test_the_training_is_calm_without_a_plant(tmp_path):
    assert trained(tmp_path, "GRU")[2].files == []
    assert planted.CALM > 20
