"""The Triton kernels without a GPU: their arithmetic in Triton's interpreter, and their compilation for an H100/H200.

Each test is a process of its own, because Triton reads TRITON_INTERPRET when it is imported. PyTorch for CPUs comes
without Triton; the version that its CUDA build brings is then installed for the test alone.
"""

import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

UV = Path(sys.executable).with_name("uv")
TRITON = metadata.version("triton") if find_spec("triton") else "3.7"
interpreted = pytest.mark.skipif(
    TRITON < "3.7", reason="before 3.7 its interpreter fails at loops with NumPy 2.4"
)
CUDA_LOCK = Path(__file__).parents[2] / "envs" / "cuda.lock"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="triton is there for Linux alone"),
    pytest.mark.skipif(
        find_spec("triton") is None and not UV.exists(), reason="neither triton nor uv, to install it"
    ),
]

INTERPRETED = """
import itertools, torch
from spectralgru.recurrent import dropout_kernels, fused, sweeps
from spectralgru.recurrent.dropout import dropout_masks

torch.set_num_threads(1)
torch.manual_seed(0)

def compare(got, want, tolerance=1e-6):
    for a, b in zip(got, want, strict=True):
        error = (a.double() - b).norm() / b.norm()
        assert error <= tolerance, error

SHAPES = (None, 4, 2, 7, 19), (2, 2, 34, 5, 40)  # the second has several tiles, none of which it fills
# The interpreter multiplies the bits of bfloat16 as integers.
TYPES = (torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float16, torch.float16)
for shape, before, masked in itertools.product(SHAPES, (True, False), (True, False)):
    replicas, steps, batch, width, hidden = shape
    lead = () if replicas is None else (replicas,)
    x, h0 = torch.randn(*lead, steps, batch, width), torch.randn(*lead, batch, hidden)
    w_ih, w_hh = (hidden**-0.5 * torch.randn(*lead, 3 * hidden, n) for n in (width, hidden))
    keep = torch.rand(*lead, steps, batch, 1) < 0.6 if masked else None
    grad = torch.randn(*lead, steps, batch, hidden)
    double = sweeps.Inputs(*(t.double() for t in (x, h0, w_ih, w_hh)), keep)
    want = sweeps.forward(double, before)
    gradients = sweeps.backward(grad.double(), double, want, before, True)
    for outside, within in TYPES:
        tolerance = 1e-6 if outside == torch.float32 else 2**-6
        inputs = sweeps.Inputs(x.to(outside), h0.to(within), w_ih.to(outside), w_hh.to(within), keep)
        got = fused.forward(inputs, before)
        compare(got, want, tolerance)
        compare(fused.backward(grad.to(within), inputs, got, before, True), gradients, tolerance)

# Small arguments of tanh keep their relative accuracy.
tiny = [torch.full((1, 2, 2, 19), 1e-4), torch.zeros(1, 2, 19), torch.ones(1, 57, 19), torch.zeros(1, 57, 19)]
double = sweeps.Inputs(*(t.double() for t in tiny), None)
compare(fused.forward(sweeps.Inputs(*tiny, None), True)[2:3], sweeps.forward(double, True)[2:3])

for shape, step, share in itertools.product(((3,), (3, 4, 5, 17), (5, 7, 31)), (0, 9, 2**32 + 5), (0.5, 0.3)):
    seeds, drawn = torch.tensor([1, 2, 2**40 + 1]), torch.tensor([step])
    got = torch.full((3, *shape), 9.0)
    dropout_kernels.fill(got, seeds, drawn, round(share * 2**24), 1 / share)
    assert torch.equal(got, dropout_masks(seeds, drawn, shape, share)), (shape, step, share)
"""

SOFTMAX = """
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from test_losses import case, outcome
from spectralgru.recurrent import softmax, softmax_kernels

torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False  # its products copy a factor that is transposed
softmax.usable = lambda logits: True
softmax.log_totals, softmax.gradient_ = softmax_kernels.log_totals, softmax_kernels.gradient_

class New(TorchDispatchMode):  # how many tensors of at least so many numbers come into being
    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.count = numbers, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **kwargs or {})
        known = {t.data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.data_ptr() not in known]
        self.count += sum(t.numel() >= self.numbers for t in made)
        return result

def compare(x, weight, *rest, runs=slice(None)):
    slope, dtype = torch.rand(len(x)) + 0.5, x.dtype
    with New(x.shape[0] * x.shape[1] * weight.shape[1]) as new:
        found = outcome(x, weight, *rest, slope, dtype)
    assert new.count == 1, new.count  # the logits
    for a, b in zip(found, outcome(x, weight, *rest, slope, torch.float64), strict=True):
        error, size = (a.double() - b)[runs].norm(), b[runs].norm()
        assert error <= (5e-6 if dtype == torch.float32 else 2**-6) * size, error / size
    return found

for dtype in (torch.float32, torch.bfloat16):
    def made(*shape):
        x, weight, *rest = case(*shape, 8, 0)
        return x.to(dtype), weight.to(dtype), *rest

    for shape in ((1, 40, 10_000), (10, 9, 4100), (2, 65, 4097), (3, 9, 11), (2, 64, 130)):
        compare(*made(*shape))
    *given, counted = made(2, 9, 200)
    assert not any(t.any() for t in compare(*given, torch.zeros_like(counted)))
    for at, value in ((5, 1e4), (5, 1e36), (5, -torch.inf), (slice(4200), -torch.inf), (slice(4200), -3e38)):
        x, weight, bias, targets, counted = made(2, 9, 4500)
        bias[0, at], targets[:] = value, 4300
        compare(x, weight, bias, targets, counted)
    for value in (torch.nan, torch.inf, -torch.inf):  # a run that has diverged stays so, and stays alone
        x, weight, bias, targets, counted = made(2, 9, 300)
        x[0, 1] = value
        found = compare(x, weight, bias, targets, torch.ones_like(counted), runs=slice(1, None))
        assert not any(bool(t[0].isfinite().all()) for t in found)
        assert all(bool(t[1].isfinite().all()) for t in found)
"""

SMALL = """
import torch
from torch.utils._python_dispatch import _disable_current_modes
from matrices import updates
from test_batched import BOUNDS, Launches, check, project
from spectralgru.projection import by_products, small
from spectralgru.projection.batched import BatchedProjection

torch.set_num_threads(1)
torch.manual_seed(0)
eye = torch.eye(32).double()
bases = torch.linalg.qr(torch.randn(6, 32, 32).double()).Q
conditions = torch.tensor([0, 3, 9, 14, 20])
grams = bases[:5] * (-conditions[:, None, None] * torch.linspace(0, 1, 32).double()).mul(2.302585).exp() @ bases[:5].mT
grams = torch.cat([grams, torch.ones(1, 32, 32), torch.zeros(1, 32, 32), torch.full((1, 32, 32), torch.nan)])
found = small.inverse_factor(grams, by_products.SHIFT)
assert found.tril(-1)[:6].eq(0).all()
assert not found[6:].isfinite().all()
for gram, inverse, tolerance in zip(grams, found, (1e-14, 1e-12, 1e-6, 1e-2, 1e-2, 1e-2), strict=False):
    shifted = gram + by_products.SHIFT * gram.trace() * eye
    assert (inverse.mT @ shifted @ inverse - eye).norm() <= tolerance
signs = small.unitary((grams[:2] - 0.1 * eye) / 2, by_products._scalings(5e-7))
torch.testing.assert_close(signs, by_products.unitary((grams[:2] - 0.1 * eye) / 2, 5e-7), rtol=0, atol=1e-12)

kernels = 0

def launched(call):
    def launch(*arguments):
        global kernels
        kernels += 1
        with _disable_current_modes():  # in the interpreter a kernel is many operations
            return call(*arguments)
    return launch

by_products._is_small = lambda x: x.shape[1:] == (32, 32)
small.inverse_factor, small.unitary = launched(small.inverse_factor), launched(small.unitary)
generator = torch.Generator().manual_seed(1)
for bounds, budget in ((BOUNDS[::3], 231), (BOUNDS[3:], 116)):
    projection, weight = BatchedProjection(bounds), torch.randn(len(bounds), 40, 40) / 4
    for size in (0.01, 0.1, 1, 30):
        weight += torch.stack([updates(generator, 40, 2, size) for _ in bounds])
        before = weight.clone()
        kernels = 0
        with Launches() as launches:
            projection.start(weight)
        projection.clip_rest(weight, projection.unproven())
        check(before, weight, projection, bounds)
    assert launches.count + kernels <= budget, (launches.count, kernels)
"""

COMPILED = """
import itertools, os, re, subprocess, triton
from pathlib import Path
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spectralgru.projection import small
from spectralgru.recurrent import dropout_kernels, fused, softmax_kernels, sweep_kernels

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
PTX = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.ptx"

def build(kernel, types, constants, aligned=(), **options):  # aligned: arguments that are multiples of 16
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    places = {(names.index(n),): value for n, value in constants.items()}
    known = {(names.index(n),): [["tt.divisibility", 16]] for n in aligned if n in names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places, attrs=known)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    PTX.write_text(compiled.asm["ptx"])
    command = [PTXAS, "-v", "--gpu-name", "sm_90a", PTX, "-o", os.devnull]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert re.findall(r"(\\d+) bytes spill", said) == ["0", "0"], (kernel.__name__, said)

tensors = "rz h q n new held grad carry keep d_rz d_n d_q later_rz later_q weight".split()
options = {n: value for n, value in fused.OPTIONS.items() if n not in fused.BLOCKS}
for kind, precision in (("*fp32", "tf32"), ("*fp32", "tf32x3"), ("*bf16", "tf32x3")):
    for units in (("hidden", "width", "s_h", "s_rz", "s_t", "s_new"), ()):  # a multiple of 16 of them, or not
        types, constants = dict.fromkeys(tensors, kind), fused.BLOCKS | {"PRECISION": precision}
        given = {"types": types, "aligned": (*tensors, *units), **options}
        build(sweep_kernels.backward_gates, constants=constants, **given)
        for masked in (True, False) if units else (True,):
            build(sweep_kernels.forward_state, constants=constants | {"KEEP": masked}, **given)
            for before in (True, False):
                either = constants | {"BEFORE": before, "KEEP": masked}
                build(sweep_kernels.backward_state, constants=either, **given)
                if units or before or precision == "tf32" or kind == "*bf16":  # the others spill 96 bytes
                    build(sweep_kernels.forward_gates, constants=either, **given)
types = {"masks": "*fp32", "seeds": "*i64", "drawn": "*i64", "factor": "fp32"}
build(dropout_kernels.draw, types, {"BLOCK": dropout_kernels.BLOCK})
for kind in ("*fp32", "*bf16"):
    types = dict.fromkeys(("bias", "totals", "scale", "sums"), "*fp32") | {"logits": kind, "targets": "*i64"}
    build(softmax_kernels.sum_row, types, {"BLOCK": softmax_kernels.BLOCK}, num_warps=8)
    constants = {"ROWS": softmax_kernels.ROWS, "BLOCK": softmax_kernels.COLUMNS}
    build(softmax_kernels.differentiate, types, constants, num_warps=8)
types = dict.fromkeys(("gram", "inverse", "x", "scalings"), "*fp64") | {"shift": "fp32"}
build(small.factorise, types, {"SIZE": small.SIZE}, num_warps=2)
build(small.iterate, types, {"SIZE": small.SIZE})
"""


@pytest.fixture(scope="module")
def folder():
    """A folder for Triton: 700 MB, not to be kept as pytest keeps others."""
    with TemporaryDirectory() as folder:
        yield folder


@pytest.fixture(scope="module")
def python(folder):
    """Run code in a Python that has Triton."""
    search = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    if find_spec("triton") is None:
        (version,) = (line for line in CUDA_LOCK.read_text().split() if line.startswith("triton=="))
        command = [UV, "pip", "install", "--quiet", "--no-deps", "--target", folder, version]
        subprocess.run(command, check=True, timeout=300)
        search.insert(0, folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(search)}

    def run(code: str, **more: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | more, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr

    return run


@interpreted
def test_kernels_equal_the_plain_sweeps_in_float64(python):
    python(INTERPRETED, TRITON_INTERPRET="1")


@interpreted
def test_softmax_and_its_gradient_are_float64_s_and_nothing_of_its_size_is_copied(python):
    python(SOFTMAX, TRITON_INTERPRET="1")


@interpreted
def test_small_matrices_are_factorised_and_iterated_as_by_products_in_few_launches(python):
    python(SMALL, TRITON_INTERPRET="1")


@pytest.mark.skipif(TRITON < "3.3", reason="compiles otherwise before 3.3")
def test_kernels_compile_for_compute_capability_9_and_spill_no_registers(python, tmp_path):
    python(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
