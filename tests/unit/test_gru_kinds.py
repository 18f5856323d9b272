"""What kinds of tensors a GRU layer takes: types, devices, layouts, strides, sizes, subclasses, transforms.

The sweeps in C++ are given addresses: what does not fit must be refused before, in a process that goes on.
"""

import contextlib

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import rnn
from torch.utils._pytree import tree_map

from spectralgru.errors import InputError, RunError
from spectralgru.recurrent import native
from spectralgru.recurrent.gru import GRU, gru_layer

TENSORS = ["x", "h0", "weight_ih", "weight_hh"]
STEPS, BATCH, WIDTH, HIDDEN = 5, 3, 4, 40
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def given(replicas=None, dtype=torch.float32, hidden=HIDDEN, width=WIDTH, batch=BATCH):
    lead = () if replicas is None else (replicas,)
    shapes = (STEPS, batch, width), (batch, hidden), (3 * hidden, width), (3 * hidden, hidden)
    return dict(zip(TENSORS, (torch.randn(*lead, *s, dtype=dtype) / 3 for s in shapes), strict=True))


def with_gradients(tensors, weight=None, **options):
    leaves = [t.detach().requires_grad_() for t in tensors.values()]
    output, last = gru_layer(*leaves, **options)
    weight = torch.ones_like(output) if weight is None else weight
    return [output.detach(), last.detach(), *torch.autograd.grad(output, leaves, weight)]


def check_close(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("replicas", [None, 1, 2])
@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.complex64]
)
@pytest.mark.parametrize("others", [torch.float32, torch.float64])
def test_one_tensor_of_another_type_is_refused(replicas, name, dtype, others):
    tensors = given(replicas, others)
    if dtype == others:
        dtype = torch.float32
    tensors[name] = tensors[name].to(dtype)
    with pytest.raises(InputError, match=r"is torch\.\w+.*; expected"):
        gru_layer(**tensors)


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_weight_put_in_place_in_another_type_is_refused_and_named(name, dtype):
    gru, x = GRU(WIDTH, HIDDEN, num_layers=2), given()["x"]
    setattr(gru, name, nn.Parameter(getattr(gru, name).detach().to(dtype)))
    with pytest.raises(InputError, match=rf"{name[:-3]} is {dtype} .* expected torch.float32 on cpu"):
        gru(x)
    with torch.autocast("cpu", torch.bfloat16):  # brings all to one type
        gru(x)[0].float().sum().backward()
    assert getattr(gru, name).grad.dtype == dtype
    gru.to(torch.float32)
    check_close(gru(x), copy_in_float64(gru)(x.double()))


def copy_in_float64(gru):
    other = GRU(gru.input_size, gru.hidden_size, gru.num_layers).double()
    other.load_state_dict(gru.state_dict())
    return other


@pytest.mark.parametrize("name", TENSORS)
def test_one_tensor_elsewhere_or_of_another_layout_is_refused(name):
    for change in (lambda t: t.to("meta"), lambda t: t.to_sparse(), lambda t: t.to_mkldnn()):
        tensors = given()
        tensors[name] = change(tensors[name])
        with pytest.raises(InputError, match=r"expected"):
            gru_layer(**tensors)


@pytest.mark.parametrize("name", [*TENSORS, "starts"])
@pytest.mark.parametrize("kind", ["list", "tuple", "PackedSequence", "nested tensor"])
def test_what_is_no_dense_tensor_is_refused_with_a_way_out(name, kind):
    tensors = given() | {"starts": torch.zeros(STEPS, BATCH)}
    parts = list(tensors[name])
    change = {
        "tuple": tuple,
        "PackedSequence": rnn.pack_sequence,
        "nested tensor": torch.nested.nested_tensor,
    }
    tensors[name] = change.get(kind, list)(parts)
    with pytest.raises(InputError, match=rf"{name} is a {kind}; expected .*pad_packed_sequence"):
        gru_layer(**tensors)
    if name == "x":
        with pytest.raises(InputError, match=rf"x is a {kind}"):
            GRU(WIDTH, HIDDEN)(tensors["x"])
        with pytest.raises(InputError, match=rf"h0 is a {kind}"):
            GRU(WIDTH, HIDDEN)(given()["x"], tensors["x"])


def test_starts_of_any_type_but_on_the_device_of_x():
    starts, tensors = torch.rand(STEPS, BATCH) < 0.5, given()
    want = gru_layer(**tensors, starts=starts)[0]
    for dtype in (torch.uint8, torch.float64, torch.int64):
        assert torch.equal(gru_layer(**tensors, starts=starts.to(dtype))[0], want)
    with pytest.raises(InputError, match=r"starts is torch\.bool on meta"):
        gru_layer(**tensors, starts=starts.to("meta"))
    with pytest.raises(InputError, match=r"starts is .*sparse"):
        gru_layer(**tensors, starts=starts.to_sparse())


def test_a_network_on_the_meta_device_gives_shapes():
    output, last = GRU(WIDTH, HIDDEN, num_layers=2).to("meta")(torch.empty(7, 2, WIDTH, device="meta"))
    assert output.shape == (7, 2, HIDDEN)
    assert last.shape == (2, 2, HIDDEN)
    assert output.device.type == last.device.type == "meta"


def negated(t):
    """The same values, kept as their negatives with PyTorch's "negative" bit set."""
    view = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert view.is_neg()
    return view


LAID_OUT = {
    "transposed": lambda t: t.mT.contiguous().mT,
    "a part of more": lambda t: torch.cat([t, t], -1)[..., : t.shape[-1]],
    "every second": lambda t: torch.stack([t, t], -1).flatten(-2)[..., ::2],
    "negated": negated,
}


@pytest.mark.parametrize("layout", LAID_OUT)
@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("replicas", [None, 2])
def test_how_tensors_lie_in_memory_does_not_matter(layout, reset, replicas):
    tensors = given(replicas)
    grad = torch.randn(*([] if replicas is None else [replicas]), STEPS, BATCH, HIDDEN)
    want = with_gradients({k: t.double() for k, t in tensors.items()}, grad.double(), reset=reset)
    change = LAID_OUT[layout]
    check_close(with_gradients({k: change(t) for k, t in tensors.items()}, change(grad), reset=reset), want)


@pytest.mark.parametrize("name", TENSORS)
def test_expanded_tensors(name):
    tensors = given()
    tensors[name] = tensors[name][:1].expand_as(tensors[name])
    check_close(with_gradients(tensors), with_gradients({k: t.double() for k, t in tensors.items()}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_gradient_of_another_type_is_converted(dtype):
    tensors, grad = given(), torch.randint(-8, 8, (STEPS, BATCH, HIDDEN)).float()
    check_close(with_gradients(tensors, grad.to(dtype)), with_gradients(tensors, grad))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("empty", ["batch", "width", "hidden"])
@pytest.mark.parametrize("replicas", [None, 2])
def test_axes_without_elements(dtype, empty, replicas):
    tensors = given(replicas, dtype, **{empty: 0})
    output, _, *gradients = with_gradients(tensors)
    assert output.dtype == dtype
    for tensor, gradient in zip(tensors.values(), gradients, strict=True):
        assert gradient.shape == tensor.shape
        assert gradient.isfinite().all()
    if empty == "batch":
        assert not gradients[3].any()


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (0, 3, 4), (0, 5, 3, 4), (1, 1, 5, 3, 4)])
@pytest.mark.parametrize("name", ["x", "weight_ih", "weight_hh"])
def test_shapes_that_no_layer_has(name, shape):
    tensors = given() | {name: torch.zeros(shape)}
    with pytest.raises(InputError, match="has shape"):
        gru_layer(**tensors)


@needs_compiler
@pytest.mark.parametrize("change", [torch.Tensor.bfloat16, torch.Tensor.double, lambda t: t[..., :1]])
def test_what_saved_tensor_hooks_changed_does_not_reach_the_library(change):
    """Hooks that compress what is kept for the backward sweep, and forget to undo it."""
    x, h0, w_ih, w_hh = (t.requires_grad_() for t in given().values())
    changed = []

    def unpack(t):
        changed.append(t)
        return change(t) if t.shape == (STEPS, BATCH, HIDDEN) else t

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        output, _ = gru_layer(x, h0, w_ih, w_hh)
    with pytest.raises(InputError, match="was it changed between forward and backward"):
        output.sum().backward()
    assert changed


@needs_compiler
@pytest.mark.parametrize("before", [True, False])
def test_the_registered_operators_check_every_tensor(before):
    tensors = given()
    saved = native.begin(native.Inputs(**tensors, keep=None))
    keep = torch.ones(STEPS, BATCH, 1, dtype=torch.bool)
    forward = [tensors["weight_hh"], keep, saved.gates, saved.candidates, saved.states, saved.recurrent]
    state = torch.zeros(STEPS, BATCH, HIDDEN)
    backward = [tensors["weight_hh"], keep, state, state.clone(), torch.zeros(STEPS, BATCH, 2 * HIDDEN)]
    backward += [state.clone(), state.clone(), torch.zeros(STEPS, BATCH, 2 * HIDDEN), state.clone()]
    backward += [state.clone(), torch.zeros(BATCH, HIDDEN)]
    wrong = [
        lambda t: t.double() if t.is_floating_point() else t.long(),
        lambda t: t[:-1],
        lambda t: t[..., :-1],
        lambda t: t.unsqueeze(0),
        lambda t: t.reshape(-1),
    ]
    for name, arguments in (("sweep_forward", forward), ("sweep_backward", backward)):
        operator = getattr(torch.ops.spectralgru, name)
        operator(*arguments, before=before)
        for i, argument in enumerate(arguments):
            scattered = [lambda t: t.mT.contiguous().mT] if i > 1 else []
            for change in wrong + scattered:
                bad = [change(argument) if i == j else t for j, t in enumerate(arguments)]
                with pytest.raises(InputError, match="a sweep was given"):
                    operator(*bad, before=before)
        freed = arguments[-1].clone()
        freed.untyped_storage().resize_(0)
        with pytest.raises(InputError, match="a sweep was given"):
            operator(*arguments[:-1], freed, before=before)


class Wrapper(torch.Tensor):
    """A tensor that has no memory of its own and passes every operation on, as DTensor does."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device, strides=inner.stride()
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        bare = tree_map(lambda t: t.inner if isinstance(t, Wrapper) else t, (args, kwargs or {}))
        output = func(*bare[0], **bare[1])
        return tree_map(lambda t: Wrapper(t) if isinstance(t, torch.Tensor) else t, output)


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("name", [*TENSORS, "all"])
@pytest.mark.parametrize("wrap", [Wrapper, lambda t: t.as_subclass(Subclass)])
def test_subclasses_of_tensor_compute_the_same(name, wrap):
    tensors = given()
    want = gru_layer(**tensors)[0]
    output = gru_layer(**{k: wrap(t) if name in (k, "all") else t for k, t in tensors.items()})[0]
    output = output.inner if isinstance(output, Wrapper) else output.as_subclass(torch.Tensor)
    torch.testing.assert_close(output, want)


def test_fake_tensors_have_shapes_and_gradients():
    with FakeTensorMode():
        gru = GRU(WIDTH, 300, num_layers=2)
        output, _ = gru(torch.randn(40, 20, WIDTH))
        output.sum().backward()
    assert output.shape == (40, 20, 300)
    assert gru.weight_hh_l1.grad.shape == (900, 300)


TRANSFORMS = {
    "vmap": lambda f, w: torch.func.vmap(f)(torch.stack([w, w])),
    "grad": lambda f, w: torch.func.grad(lambda w: f(w).sum())(w),
    "jacrev": lambda f, w: torch.func.jacrev(lambda w: f(w).sum())(w),
    "jvp": lambda f, w: torch.func.jvp(f, (w,), (w,)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_of_torch_func_are_refused(transform):
    tensors = given()
    weight = tensors.pop("weight_hh")
    with pytest.raises(InputError, match=r"torch\.func .*use torch\.autograd\.grad, or replicas=R"):
        TRANSFORMS[transform](lambda w: gru_layer(**tensors, weight_hh=w)[0], weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_gradients_at_once_are_right_or_refused(dtype):
    leaves = [t.requires_grad_() for t in given(dtype=dtype).values()]
    output = gru_layer(*leaves)[0]
    weights = torch.stack([torch.ones_like(output), torch.randn_like(output)])
    want = [torch.autograd.grad(output, leaves[3], w, retain_graph=True)[0] for w in weights]
    with contextlib.suppress(RuntimeError):
        got = torch.autograd.grad(output, leaves[3], weights, is_grads_batched=True)[0]
        torch.testing.assert_close(got, torch.stack(want))


@pytest.mark.parametrize("leaf", TENSORS)
def test_second_derivatives_are_refused_in_float32_too(leaf):
    tensors = {k: t.requires_grad_() for k, t in given().items()}
    (grad,) = torch.autograd.grad(gru_layer(**tensors)[0].square().sum(), tensors[leaf], create_graph=True)
    with pytest.raises(RunError, match="second derivative"):
        grad.square().sum().backward()


@pytest.mark.skipif(torch.__version__ < "2.7", reason="the tracer of torch 2.6 does not know zip(strict=)")
def test_a_frozen_network_is_exported():
    gru, x = GRU(WIDTH, HIDDEN).requires_grad_(False), given()["x"]
    exported = torch.export.export(gru, (x,)).module()
    torch.testing.assert_close(exported(x), gru(x))


def test_a_compiled_layer_checks_types_too():
    gru = GRU(WIDTH, HIDDEN)
    gru.weight_hh_l0 = nn.Parameter(gru.weight_hh_l0.detach().double())
    with pytest.raises(Exception, match=r"weight_hh is torch\.float64"):
        torch.compile(gru, backend="eager")(given()["x"])
