"""The GRU against its equations written plainly, and against torch.nn.GRU."""

import pytest
import torch
from torch import Tensor

from spectralgru.errors import InputError, RunError
from spectralgru.recurrent.gru import GRU, gru_layer


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def plain_layer(
    x: Tensor, h: Tensor, weight_ih: Tensor, weight_hh: Tensor, starts: Tensor | None, reset: str
):
    """The equations, one step and one gate at a time; x [T, B, I]."""
    (w_ir, w_iz, w_in), (w_hr, w_hz, w_hn) = weight_ih.chunk(3), weight_hh.chunk(3)
    output = []
    for t in range(x.shape[0]):
        if starts is not None:
            h = torch.where(starts[t, :, None], torch.zeros_like(h), h)
        r = torch.sigmoid(x[t] @ w_ir.T + h @ w_hr.T)
        z = torch.sigmoid(x[t] @ w_iz.T + h @ w_hz.T)
        recurrent = (r * h) @ w_hn.T if reset == "before" else r * (h @ w_hn.T)
        n = torch.tanh(x[t] @ w_in.T + recurrent)
        h = z * h + (1 - z) * n
        output.append(h)
    return torch.stack(output), h


def inputs(replicas, steps, batch, width, hidden, dtype=torch.float64):
    lead = () if replicas is None else (replicas,)

    def draw(*shape):
        return torch.randn(*lead, *shape, dtype=dtype).requires_grad_()

    starts = torch.rand(*lead, steps, batch) < 0.3
    return (
        draw(steps, batch, width),
        draw(batch, hidden),
        draw(3 * hidden, width),
        draw(3 * hidden, hidden),
        starts,
    )


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("with_starts", [False, True])
@pytest.mark.parametrize(("replicas", "steps", "batch"), [(None, 4, 3), (2, 3, 2), (None, 1, 3), (3, 5, 1)])
def test_values_and_gradients_are_those_of_the_equations(reset, with_starts, replicas, steps, batch):
    x, h0, w_ih, w_hh, starts = inputs(replicas, steps, batch, 4, 5)
    starts = starts if with_starts else None
    output, h_n = gru_layer(x, h0, w_ih, w_hh, starts, reset)
    if replicas is None:
        want, want_n = plain_layer(x, h0, w_ih, w_hh, starts, reset)
    else:
        alone = [
            plain_layer(x[i], h0[i], w_ih[i], w_hh[i], None if starts is None else starts[i], reset)
            for i in range(replicas)
        ]
        want, want_n = (torch.stack(parts) for parts in zip(*alone, strict=True))
    torch.testing.assert_close(output, want)
    torch.testing.assert_close(h_n, want_n)
    weight, weight_n = torch.randn_like(output), torch.randn_like(h_n)
    got = torch.autograd.grad((output * weight).sum() + (h_n * weight_n).sum(), (x, h0, w_ih, w_hh))
    expected = torch.autograd.grad((want * weight).sum() + (want_n * weight_n).sum(), (x, h0, w_ih, w_hh))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("replicas", [None, 2])
def test_gradcheck(reset, replicas):
    x, h0, w_ih, w_hh, starts = inputs(replicas, 3, 2, 2, 3)
    assert torch.autograd.gradcheck(lambda *a: gru_layer(*a, starts, reset), (x, h0, w_ih, w_hh))
    assert torch.autograd.gradcheck(lambda *a: gru_layer(*a, None, reset), (x, h0, w_ih, w_hh))


@pytest.mark.parametrize("given_h0", [False, True])
def test_reset_after_is_torch_gru_with_its_state_dict(given_h0):
    theirs = torch.nn.GRU(7, 11, num_layers=3, bias=False)
    ours = GRU(7, 11, num_layers=3, reset="after")
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(9, 4, 7, requires_grad=True)
    h0 = torch.randn(3, 4, 11, requires_grad=True) if given_h0 else None
    got, want = ours(x, h0), theirs(x, h0)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    leaves = [x] if h0 is None else [x, h0]
    grads = torch.autograd.grad((got[0] ** 2).sum() + got[1].sum(), [*leaves, *ours.parameters()])
    wanted = torch.autograd.grad((want[0] ** 2).sum() + want[1].sum(), [*leaves, *theirs.parameters()])
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_replicas_are_networks_of_their_own():
    many = GRU(3, 5, num_layers=2, replicas=3)
    x, h0 = torch.randn(3, 6, 2, 3), torch.randn(3, 2, 2, 5)
    output, h_n = many(x, h0)
    for i in range(3):
        one = GRU(3, 5, num_layers=2)
        one.load_state_dict({name: weight[i] for name, weight in many.state_dict().items()})
        alone = one(x[i], h0[i])
        torch.testing.assert_close(output[i], alone[0])
        torch.testing.assert_close(h_n[i], alone[1])


def test_starts_concatenate_sequences():
    gru = GRU(3, 4)
    tunes = [torch.randn(n, 1, 3) for n in (4, 2, 5)]
    starts = torch.zeros(11, 1, dtype=torch.bool)
    starts[[4, 6]] = True
    stream, _ = gru(torch.cat(tunes), starts=starts)
    torch.testing.assert_close(stream, torch.cat([gru(tune)[0] for tune in tunes]))


def test_non_contiguous_inputs_give_the_same():
    x, h0, w_ih, w_hh, _ = inputs(None, 5, 3, 4, 6)
    scattered = [t.detach().mT.contiguous().mT.requires_grad_() for t in (x, h0, w_ih, w_hh)]
    assert not scattered[0].is_contiguous()
    got, want = gru_layer(*scattered)[0], gru_layer(x, h0, w_ih, w_hh)[0]
    torch.testing.assert_close(got, want)
    # a gradient with stride 0, as .sum() gives
    grads = torch.autograd.grad(got.sum(), scattered)
    for a, b in zip(grads, torch.autograd.grad(want.sum(), (x, h0, w_ih, w_hh)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reset", ["before", "after"])
def test_bfloat16_autocast(reset):
    gru, x = GRU(6, 8, num_layers=2, reset=reset), torch.randn(5, 3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = gru(x)
    assert output.dtype == torch.bfloat16
    output.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in gru.parameters())
    torch.testing.assert_close(output.float(), gru(x)[0], atol=0.02, rtol=0.05)


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("replicas", [None, 1, 2])
def test_the_output_may_be_changed_in_place(reset, replicas):
    gru = GRU(4, 5, num_layers=2, reset=reset, replicas=replicas).double()
    x = torch.randn(*([] if replicas is None else [replicas]), 3, 2, 4, dtype=torch.float64)
    output, h_n = gru(x)
    want = torch.autograd.grad((2 * output).relu().sum() + h_n.exp().sum(), list(gru.parameters()))
    output, h_n = gru(x)
    output.mul_(2).relu_()
    h_n.exp_()
    got = torch.autograd.grad(output.sum() + h_n.sum(), list(gru.parameters()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("replicas", [None, 1])
def test_states_changed_behind_the_backward_sweep_are_an_error_not_another_gradient(replicas):
    x, _, w_ih, w_hh, _ = inputs(replicas, 3, 2, 4, 5)
    states, last = gru_layer(x, None, w_ih, w_hh)
    loss = states.sum()
    for changed in (states, last):
        with pytest.raises(RuntimeError, match="is being modified inplace"):
            changed.mul_(2)
    states.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_gradient_work_for_inputs_that_need_none():
    gru, x = GRU(4, 5), torch.randn(3, 2, 4)
    gru.weight_ih_l0.requires_grad_(False)
    gru(x)[0].sum().backward()
    assert x.grad is None
    assert gru.weight_ih_l0.grad is None
    assert gru.weight_hh_l0.grad is not None


def test_double_backward_is_refused():
    x, h0, w_ih, w_hh, _ = inputs(None, 3, 2, 2, 3)
    (grad,) = torch.autograd.grad(gru_layer(x, h0, w_ih, w_hh)[0].sum(), x, create_graph=True)
    with pytest.raises(RunError, match="second derivative"):
        grad.sum().backward()


def test_dropout_acts_between_layers_while_training():
    gru, x = GRU(4, 32, num_layers=2, dropout=0.5), torch.randn(3, 2, 4)
    assert not torch.equal(gru(x)[0], gru(x)[0])
    gru.eval()
    assert torch.equal(gru(x)[0], gru(x)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GRU(3, 0), "hidden_size=0"),
        (lambda: GRU(3, 4, dropout=1.0), "dropout=1.0"),
        (lambda: GRU(3, 4, reset="between"), "reset='between'"),
        (lambda: GRU(3, 4, replicas=0), "replicas=0"),
        (lambda: GRU(3, 4.0), "hidden_size=4.0: must be a whole number"),
        (lambda: GRU("3", 4), "input_size='3'"),
        (lambda: GRU(3, 4, dropout="0.1"), "dropout='0.1': must be a number"),
        (lambda: GRU(3, 4)(torch.randn(5, 3)), r"x has shape \[5, 3\]"),
        (lambda: GRU(3, 4)(torch.randn(5, 2, 4)), r"x has shape .* expected \[5, 2, 3\]"),
        (lambda: GRU(3, 4, replicas=2)(torch.randn(3, 5, 2, 3)), r"expected \[2, T, B, I\]"),
        (lambda: GRU(3, 4)(torch.randn(5, 2, 3), torch.zeros(2, 2, 4)), "h0 has shape"),
        (lambda: GRU(3, 4)(torch.randn(5, 2, 3), starts=torch.zeros(4, 2)), "starts has shape"),
        (lambda: GRU(3, 4)(torch.randn(0, 2, 3)), "T >= 1"),
    ],
)
def test_wrong_use_names_the_thing_and_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("reset", ["before", "after"])
def test_a_compiled_stack_computes_the_same(reset):
    net, x = GRU(6, 10, 2, reset=reset), torch.randn(5, 3, 6)
    compiled = torch.compile(net, backend="aot_eager")
    gradients = []
    for run in (net, compiled):
        output, _ = run(x)
        gradients.append([output, *torch.autograd.grad(output.square().sum(), list(net.parameters()))])
    torch.testing.assert_close(*gradients)
