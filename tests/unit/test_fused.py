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
CUDA_LOCK = Path(__file__).parents[2] / "envs" / "cuda.lock"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="triton is there for Linux alone"),
    pytest.mark.skipif(
        find_spec("triton") is None and not UV.exists(), reason="neither triton nor uv, to install it"
    ),
]

INTERPRETED = """
import itertools, torch
from spectralgru.recurrent import fused, sweeps

torch.set_num_threads(1)
torch.manual_seed(0)

def compare(got, want):
    for a, b in zip(got, want, strict=True):
        assert (a.double() - b).norm() <= 1e-6 * b.norm(), ((a.double() - b).norm() / b.norm())

for replicas, before, masked in itertools.product((None, 3), (True, False), (True, False)):
    lead = () if replicas is None else (replicas,)
    steps, batch, width, hidden = 4, 2, 7, 19
    x, h0 = torch.randn(*lead, steps, batch, width), torch.randn(*lead, batch, hidden)
    w_ih, w_hh = (0.3 * torch.randn(*lead, 3 * hidden, n) for n in (width, hidden))
    keep = torch.rand(*lead, steps, batch, 1) < 0.6 if masked else None
    grad = torch.randn(*lead, steps, batch, hidden)
    inputs = sweeps.Inputs(x, h0, w_ih, w_hh, keep)
    double = sweeps.Inputs(*(t.double() for t in inputs[:4]), keep)
    got, want = fused.forward(inputs, before), sweeps.forward(double, before)
    compare(got, want)
    compare(
        fused.backward(grad, inputs, got, before, True),
        sweeps.backward(grad.double(), double, want, before, True),
    )

# Small arguments of tanh keep their relative accuracy.
tiny = [torch.full((1, 2, 2, 19), 1e-4), torch.zeros(1, 2, 19), torch.ones(1, 57, 19), torch.zeros(1, 57, 19)]
double = sweeps.Inputs(*(t.double() for t in tiny), None)
compare(fused.forward(sweeps.Inputs(*tiny, None), True)[2:3], sweeps.forward(double, True)[2:3])

seeds, drawn = torch.tensor([1, 2, 2**40 + 1]), torch.zeros(1, dtype=torch.int64)
masks = [fused.dropout_masks(seeds, drawn, (3, 4, 5, 17), 0.3) for _ in range(2)]
assert drawn.item() == 2
alone = fused.dropout_masks(seeds[2:], torch.ones(1, dtype=torch.int64), (3, 4, 5, 17), 0.3)
assert torch.equal(masks[1][2], alone[0])
every = torch.cat([m.flatten(1) for m in masks])
assert set(every.unique().tolist()) == {0.0, torch.tensor(1 / 0.3).item()}
assert ((every > 0).float().mean(1) - 0.3).abs().max() < 0.06
overlap = torch.corrcoef((every > 0).float()) - torch.eye(6)
assert overlap.abs().max() < 0.13, overlap
"""

COMPILED = """
import itertools, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spectralgru.recurrent import pointwise

def build(kernel, types, constants):
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    places = {(kernel.arg_names.index(n),): value for n, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    assert "ptx" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm

names = "rz h q n new held grad carry keep d_rz d_n d_q drh".split()
for kind in ("*fp32", "*bf16"):
    types = dict.fromkeys(names, kind)
    build(pointwise.gates_forward, types, {"BLOCK": 256})
    build(pointwise.gates_backward, types, {"BLOCK": 256})
    for before, masked in itertools.product((True, False), (True, False)):
        constants = {"BLOCK": 256, "BEFORE": before, "KEEP": masked}
        build(pointwise.state_forward, types, constants)
        build(pointwise.state_backward, types, constants)
types = {"masks": "*fp32", "seeds": "*i64", "drawn": "*i64", "share": "fp32"}
build(pointwise.bernoulli, types, {"BLOCK": 256})
"""


@pytest.fixture(scope="module")
def folder():
    """A folder for Triton: 700 MB, not to be kept as pytest keeps others."""
    with TemporaryDirectory() as folder:
        yield folder


@pytest.fixture(scope="module")
def python(folder):
    """Run code in a Python that has Triton."""
    environment = dict(os.environ)
    if find_spec("triton") is None:
        (version,) = (line for line in CUDA_LOCK.read_text().split() if line.startswith("triton=="))
        command = [UV, "pip", "install", "--quiet", "--no-deps", "--target", folder, version]
        subprocess.run(command, check=True, timeout=300)
        environment["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])

    def run(code: str, **more: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | more, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr

    return run


def test_kernels_equal_the_plain_sweeps_in_float64(python):
    python(INTERPRETED, TRITON_INTERPRET="1")


@pytest.mark.skipif(
    find_spec("triton") is not None and metadata.version("triton") < "3.3",
    reason="compiles otherwise before 3.3",
)
def test_kernels_compile_for_compute_capability_9(python, tmp_path):
    python(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
