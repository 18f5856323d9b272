"""The sweeps in C++ against the others in float64, and how they are compiled."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectralgru.recurrent import compiled, native, sweeps, threads

needs_compiler = pytest.mark.skipif(compiled.library() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def tensors(steps, batch, width, hidden, restarts, seed=0):
    torch.manual_seed(seed)
    return {
        "x": torch.randn(steps, batch, width),
        "h0": torch.randn(batch, hidden),
        "weight_ih": torch.randn(3 * hidden, width) / width**0.5,
        "weight_hh": torch.randn(3 * hidden, hidden) / hidden**0.5,
        "keep": torch.rand(steps, batch, 1) < 0.8 if restarts else None,
    }


def sweep(module, given, grad, before):
    inputs = sweeps.Inputs(**given)
    activations = module.forward(inputs, before)
    gradients = module.backward(grad, inputs, activations, before, needs_x=True)
    return [*activations, *gradients]


def in_float64(given):
    return {name: t if t is None or name == "keep" else t.double() for name, t in given.items()}


@needs_compiler
@settings(deadline=None)
@given(
    steps=st.integers(1, 6),
    batch=st.integers(1, 40),
    width=st.integers(1, 20),
    hidden=st.integers(1, 70),
    restarts=st.booleans(),
    before=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_shape_is_what_float64_says(steps, batch, width, hidden, restarts, before, seed):
    given = tensors(steps, batch, width, hidden, restarts, seed)
    grad = torch.randn(steps, batch, hidden)
    want = sweep(sweeps, in_float64(given), grad.double(), before)
    for got, wanted in zip(sweep(native, given, grad, before), want, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("before", [True, False])
def test_small_and_large_arguments_keep_their_accuracy(before):
    given = tensors(4, 6, 1, 64, restarts=False)
    given["x"] = torch.logspace(-12, 4, 24).view(4, 6, 1) * torch.tensor([1.0, -1.0]).repeat(12).view(4, 6, 1)
    given["weight_ih"].fill_(1.0)
    given["h0"].zero_()
    given["weight_hh"].zero_()
    # Nothing reaches a step from the one before but the state.
    got = native.forward(sweeps.Inputs(**given), before)
    want = sweeps.forward(sweeps.Inputs(**in_float64(given)), before)
    torch.testing.assert_close(got.candidates.double(), want.candidates, rtol=1e-6, atol=0)
    torch.testing.assert_close(got.gates.double(), want.gates, rtol=1e-6, atol=1e-37)


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_lane_and_is_not_hidden(bad):
    given = tensors(5, 20, 3, 33, restarts=False)
    clean = native.forward(sweeps.Inputs(**given), True).states
    given["x"][2, 7, 0] = bad
    given["weight_ih"][0, 0] = 1.0  # not zero: inf * 0 is NaN
    states, wanted = (module.forward(sweeps.Inputs(**given), True).states for module in (native, sweeps))
    assert torch.equal(states.isfinite(), wanted.isfinite())
    others = [lane for lane in range(20) if lane != 7]
    assert torch.equal(states.isfinite()[:, others], clean.isfinite()[:, others])
    given["h0"][3, 5] = bad
    given["keep"] = torch.zeros(5, 20, 1, dtype=torch.bool)
    assert native.forward(sweeps.Inputs(**given), True).states[1, 3].isnan().any()


@needs_compiler
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_threads_change_no_bit(before, pooled, monkeypatch):
    monkeypatch.setattr(native, "MULTIPLICATIONS_A_THREAD", 1)
    if not pooled:
        monkeypatch.setattr(threads, "_address", lambda: None)
    given, grad = tensors(7, 33, 5, 50, restarts=True), torch.randn(7, 33, 50)
    alone = sweep(native, given, grad, before)[:4]
    try:
        for count in (2, 3):
            torch.set_num_threads(count)
            shared = sweep(native, given, grad, before)[:4]
            assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    finally:
        torch.set_num_threads(1)


THREADS = """
import os, signal, sys
import torch
from spectralgru.recurrent import native, softmax, sweeps, threads

native.MULTIPLICATIONS_A_THREAD = 1
torch.manual_seed(0)
torch.set_num_threads(3)
given = sweeps.Inputs(*(torch.randn(*s) for s in ((7, 33, 5), (33, 50), (150, 5), (150, 50))), None)
logits, bias = torch.randn(1, 40, 1003).bfloat16(), torch.randn(1, 1003)
begun = [native.begin(given) for _ in range(2)]
torch.randn(1_000_000).exp()  # PyTorch starts its threads


def work(begun):
    torch.ops.spectralgru.sweep_forward(given.weight_hh, None, *begun[1:3], begun[0], begun[3], before=True)
    return [*begun, softmax.log_totals(logits, bias)]


def number():
    return len(os.listdir("/proc/self/task"))


before = number()
result = work(begun[0])
print("pool" if threads.pool().parallel else "none", threads.pool().threads, number() - before)
sys.stdout.flush()
if os.fork():
    _, status = os.wait()
    sys.exit(os.waitstatus_to_exitcode(status))
signal.alarm(60)
print(threads.pool().threads, all(map(torch.equal, result, work(begun[1]))), flush=True)
os._exit(0)  # GNU's OpenMP does not survive the exit of a fork
"""


@needs_compiler
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_the_threads_are_pytorchs_own_and_a_fork_does_without_them():
    output = subprocess.run(
        [sys.executable, "-c", THREADS], stdout=subprocess.PIPE, text=True, timeout=120, check=True
    ).stdout
    # A fork has none of its parent's threads: to wait for them, as PyTorch's own operators do, would be for ever.
    assert output.splitlines() == ["pool 3 0", "1 True"]


PROGRAM = """
import os, sys
import torch
from spectralgru import GRU
from spectralgru.recurrent import compiled
torch.manual_seed(0)
count = int(sys.argv[1])
while count > 1 and os.fork():
    count -= 1
GRU(3, 4)(torch.randn(5, 2, 3))[0].sum().backward()
said = f"{'native' if compiled.library() else 'torch'} {compiled.compiler_version()}\\n"
os.write(1, said.encode())  # whole lines, where several processes write them
if count == 1:
    sys.exit(any(os.wait()[1] for _ in range(int(sys.argv[1]) - 1)))
"""


def start(cache: Path, compiler: str = "c++", count: int = 1) -> subprocess.Popen:
    """As many processes, forked when all is imported."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "CXX": compiler}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(count)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def which(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output.strip()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def quick(path: Path, first: str = "") -> str:
    """The compiler without its optimisation, where what it compiles is not at issue."""
    return script(path, f'{first}\nexec c++ "$@" -O0')


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_working_compiler_the_layer_still_works(tmp_path, compiler):
    assert which(start(tmp_path, compiler)) == "torch none"
    assert not list(tmp_path.rglob("*.so"))


@needs_compiler
def test_without_a_writable_cache_the_layer_still_works(tmp_path):
    (tmp_path / "spectralgru").write_text("not a folder")
    assert which(start(tmp_path)) == "torch none"


@needs_compiler
def test_it_is_compiled_once_by_processes_that_start_together_and_never_again(tmp_path):
    counted = quick(tmp_path / "compiler", f'echo "$*" >> {tmp_path}/calls')
    said = which(start(tmp_path, counted, count=3)).splitlines()
    assert said == [f"native {compiled.compiler_version()}"] * 3
    (kept,) = (tmp_path / "spectralgru").iterdir()
    written = kept.stat().st_mtime_ns
    assert which(start(tmp_path, counted)).startswith("native")
    assert kept.stat().st_mtime_ns == written
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "--version"


@needs_compiler
def test_a_process_killed_while_compiling_leaves_nothing_that_is_loaded(tmp_path):
    begun = tmp_path / "begun"
    slow = script(tmp_path / "slow", f'case "$*" in --version) echo same;; *) touch {begun}; sleep 60;; esac')
    process = start(tmp_path, slow)
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    os.killpg(process.pid, signal.SIGKILL)  # the compiler, which nobody waits for any more
    assert not list((tmp_path / "spectralgru").glob("*.so"))
    assert which(start(tmp_path, quick(tmp_path / "compiler"))).startswith("native")
