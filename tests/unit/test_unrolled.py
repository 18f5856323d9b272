"""Replays cell by cell against the modules themselves: values, gradients, and what is traced."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from spectralgru import GRU
from spectralgru.diagnosis.replay import FiledReplay, ModelReplay
from spectralgru.errors import InputError

T, B, WIDTH, H = 6, 3, 4, 5


class Model(nn.Module):
    """A recurrent module, and a loss that all of its results enter."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, *args):
        output, last = self.rnn(*args)
        last = sum(last) if isinstance(last, tuple) else last
        output = output.data if hasattr(output, "batch_sizes") else output
        return output.square().sum() + (last**3).sum()


class Loop(nn.Module):
    """A cell in a loop of the user's own."""

    def __init__(self, cell):
        super().__init__()
        self.rnn = cell

    def forward(self, x, state=None):
        total = 0.0
        for x_t in x:
            state = self.rnn(x_t, state)
            h = state[0] if isinstance(state, tuple) else state
            total = total + h.square().sum()
        return total + (state[1] ** 3).sum() if isinstance(state, tuple) else total


SEQUENCES = {
    "GRU": lambda: (nn.GRU(WIDTH, H, 2), torch.randn(T, B, WIDTH)),
    "GRU, one sequence": lambda: (nn.GRU(WIDTH, H), torch.randn(T, WIDTH)),
    "GRU, both directions, batch first, a state": lambda: (
        nn.GRU(WIDTH, H, 2, bidirectional=True, batch_first=True),
        torch.randn(B, T, WIDTH),
        torch.randn(4, B, H),
    ),
    "GRU, packed": lambda: (
        nn.GRU(WIDTH, H, 2, bidirectional=True),
        pack_padded_sequence(
            torch.randn(T, B, WIDTH).double(), torch.tensor([3, 6, 2]), enforce_sorted=False
        ),
    ),
    "GRU, dropout": lambda: (nn.GRU(WIDTH, H, 3, dropout=0.5), torch.randn(T, B, WIDTH)),
    "LSTM": lambda: (nn.LSTM(WIDTH, H, 2, bias=False), torch.randn(T, B, WIDTH)),
    "LSTM, one sequence and its state": lambda: (
        nn.LSTM(WIDTH, H),
        torch.randn(T, WIDTH),
        (torch.randn(1, H).double(), torch.randn(1, H).double()),
    ),
    "RNN": lambda: (nn.RNN(WIDTH, H, 2, bidirectional=True), torch.randn(T, B, WIDTH)),
    "RNN, relu": lambda: (nn.RNN(WIDTH, H, nonlinearity="relu"), torch.randn(T, B, WIDTH)),
    "ours": lambda: (GRU(WIDTH, H, 2, dropout=0.3), torch.randn(T, B, WIDTH), torch.randn(2, B, H)),
    "ours, after": lambda: (GRU(WIDTH, H, 2, reset="after"), torch.randn(T, B, WIDTH)),
    "ours, replicas": lambda: (GRU(WIDTH, H, 2, replicas=2), torch.randn(2, T, B, WIDTH)),
    "ours, starts": lambda: (GRU(WIDTH, H, 2), torch.randn(T, B, WIDTH), None, torch.rand(T, B) < 0.3),
}
CELLS = {
    "GRUCell": lambda: (nn.GRUCell(WIDTH, H), torch.randn(T, B, WIDTH)),
    "GRUCell, one sequence": lambda: (nn.GRUCell(WIDTH, H), torch.randn(T, WIDTH)),
    "LSTMCell": lambda: (nn.LSTMCell(WIDTH, H), torch.randn(T, B, WIDTH)),
    "RNNCell": lambda: (nn.RNNCell(WIDTH, H), torch.randn(T, B, WIDTH), torch.randn(B, H)),
}


def made(name):
    torch.manual_seed(0)
    rnn, *args = {**SEQUENCES, **CELLS}[name]()
    model = (Model if name in SEQUENCES else Loop)(rnn).double()
    args = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]
    return model, tuple(args)


@pytest.mark.parametrize("name", [*SEQUENCES, *CELLS])
def test_it_computes_what_the_module_does(name):
    model, args = made(name)
    replay = ModelReplay(model, args, {}, lambda loss: loss)
    got = replay.run()
    loss = model(*args)  # the generators are where they were: the same dropout
    assert got.objective == pytest.approx(loss.item(), rel=1e-12)
    for (weight, parameter), g in zip(
        model.named_parameters(), torch.autograd.grad(loss, model.parameters()), strict=False
    ):
        assert torch.allclose(got.gradients[weight], g, rtol=1e-9, atol=1e-12), weight
        assert parameter.grad is None
    assert "forward" not in model.rnn.__dict__
    growth = got.growths[0]
    assert growth.gradient.shape[0] == T
    assert growth.gradient.shape == growth.factor.shape


@pytest.mark.parametrize("name", [*SEQUENCES, *CELLS])
def test_the_calls_alone_give_the_same_gradients(name):
    model, args = made(name)
    whole = ModelReplay(model, args, {}, lambda loss: loss).run()
    calls = whole.trace.calls
    filed = FiledReplay(calls, whole.seeds, dict(model.named_parameters())).run()
    assert filed.gradients.keys() == whole.gradients.keys()
    for weight, gradient in filed.gradients.items():
        assert torch.allclose(gradient, whole.gradients[weight], rtol=1e-9, atol=1e-12), weight
    for ours, theirs in zip(filed.growths, whole.growths, strict=True):
        assert torch.allclose(ours.gradient, theirs.gradient)
        assert torch.allclose(ours.factor, theirs.factor)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN", "ours", "GRUCell", "LSTMCell"])
def test_with_every_path_cut_nothing_comes_back_through_time(name):
    model, args = made(name)
    replay = ModelReplay(model, args, {}, lambda loss: loss)
    whole = replay.run()
    cut = replay.run(whole.growths[0].passage.cell.paths)
    assert cut.objective == pytest.approx(whole.objective)
    assert not cut.growths[-1].factor.any()
    assert whole.growths[-1].factor.all()


def test_an_lstm_with_projections_is_refused():
    model = Model(nn.LSTM(WIDTH, H, proj_size=2))
    with pytest.raises(InputError, match="rnn: an LSTM with proj_size=2"):
        ModelReplay(model, (torch.zeros(T, B, WIDTH),), {}, lambda loss: loss).run()


def test_a_compiled_model_is_taken_apart_too():
    model, args = made("GRU")
    eager = ModelReplay(model, args, {}, lambda loss: loss).run()
    compiled = ModelReplay(torch.compile(model), args, {}, lambda loss: loss).run()
    assert compiled.gradients.keys() == eager.gradients.keys()
    assert compiled.norm == eager.norm


def test_the_growth_is_that_between_the_peak_and_the_step_where_it_begins():
    model, args = made("RNN")
    got = ModelReplay(model, args, {}, lambda loss: loss).run().growths[0]
    got.factor = torch.tensor([[0.0], [2.0], [3.0], [4.0], [0.1], [1.0]])
    got.gradient = torch.tensor([[9.0], [24.0], [12.0], [4.0], [1.0], [1.0]])
    assert got.worst_lane() == 0
    assert got.window(0) == (1, 3, pytest.approx(12.0))
