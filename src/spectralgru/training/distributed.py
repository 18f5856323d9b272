"""The ranks of one job: they split the lanes of the batch and arrive at the same result.

`launch` starts the ranks of one machine, `torchrun` those of several. A single process is the only rank of its job, and
everything here then returns what it was given. Ranks exchange tensors and text; nothing received is unpickled.
"""

import ctypes
import hashlib
import io
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spectralgru.errors import InputError, RunError

Value = TypeVar("Value")
PR_SET_PDEATHSIG = 1
# A rank that waits this long for another gives up; the job then ends and the workflow restarts it.
TIMEOUT_SECONDS = 300.0
# In gloo's errors, which have no type of their own, when another rank is gone or silent.
LOST = ("gloo", "Application timeout", "Connection closed", "Timed out")
STORE = "SPECTRALGRU_STORE"  # where the ranks of one machine find each other: a file in a private folder of their user


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of its job."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and messages."""
        return self.rank == 0

    def share(self, lanes: int) -> slice:
        """This rank's lanes of the batch; ranks differ by at most one lane."""
        if lanes < self.world:
            raise InputError(
                f"{self.world} processes cannot share a batch of {lanes}; use at most {lanes} processes"
            )
        ends = [len(part) for part in np.array_split(np.arange(lanes), self.world)]
        begin = sum(ends[: self.rank])
        return slice(begin, begin + ends[self.rank])

    def parallel(self, model: nn.Module) -> Callable[..., Any]:
        """The model to call; its gradients are summed over ranks."""
        if self.world == 1:
            return model
        network = DistributedDataParallel(model)
        network.register_comm_hook(None, _sum_each)
        return network

    def total(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor [R, ...] over ranks, in place: the same bits on each rank, and for a run in any company."""
        if self.world > 1:
            for one in _sums(tensor):
                one.wait()
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on any rank."""
        if self.world == 1:
            return list(flags)
        raised = torch.tensor([float(flag) for flag in flags])
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def all_lanes(self, state: Tensor, lanes: int) -> Tensor:
        """State [R, L, B, H] of all lanes, assembled from the lanes of each rank."""
        if self.world == 1:
            return state
        whole = state.new_zeros(*state.shape[:2], lanes, state.shape[3])
        whole[:, :, self.share(lanes)] = state
        return self.total(whole)

    def agreed(self, compute: Callable[[], Value]) -> Value:
        """The first rank's result, for example from files, on every rank: tensors, numbers, text, lists and dicts.

        If the first rank raises an error, the others raise InputError or RunError.
        """
        if self.world == 1:
            return compute()
        if not self.first:
            answer, fault = self._from_first(None)
            if fault:
                raise InputError(fault[1]) if fault[0] else RunError(fault[1])
            return cast(Value, answer)
        try:
            value = compute()
        except Exception as error:
            self._from_first([None, [isinstance(error, InputError), str(error)]])
            raise
        self._from_first([value, None])
        return value

    def _from_first(self, value: Any) -> Any:
        """The first rank's value on every rank, sent as a file that torch loads with `weights_only`."""
        file = io.BytesIO()
        if self.first:
            torch.save(value, file)
        size = int(self.total(torch.tensor([file.tell()])))
        content = np.frombuffer(file.getvalue().ljust(size, b"\0"), np.uint8).copy()
        dist.broadcast(torch.from_numpy(content), 0)
        return value if self.first else torch.load(io.BytesIO(content.tobytes()), weights_only=True)

    def check_same(self, tensors: Iterable[Tensor]) -> None:
        """Raise RunError unless the tensors hold the same bits on every rank."""
        if self.world == 1:
            return
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digests = torch.zeros(self.world, digest.digest_size, dtype=torch.uint8)
        digests[self.rank] = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
        names = [bytes(row.tolist()).hex()[:8] for row in self.total(digests)]
        if len(set(names)) > 1:
            raise RunError(
                f"the weights differ between ranks ({', '.join(names)}): the machines or their "
                "libraries are not alike; run the job on machines of one kind"
            )


def _sums(tensor: Tensor) -> list[dist.Work]:
    """Begin to sum a tensor [R, ...] over ranks.

    The order in which three ranks or more are added depends on a number's place in what is sent, and so on all that is
    sent with it. Every run is then sent by itself: the others may have ended, or be at another step after a kill.
    """
    parts = tensor.unbind() if dist.get_world_size() > 2 else [tensor]
    return [dist.all_reduce(part, async_op=True) for part in parts]


def _sum_each(
    _state: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Sum a bucket's gradients one by one: DDP rearranges its buckets after the first step (see `_sums`)."""
    sums = [one for gradient in bucket.gradients() for one in _sums(gradient)]
    if bucket.buffer().is_cuda and dist.get_backend() == "gloo":
        for one in sums:  # gloo's futures do not wait for its copies to the GPU
            one.wait()
    done = torch.futures.collect_all([one.get_future() for one in sums])
    return done.then(lambda _: bucket.buffer())


ALONE = Ranks()


def device_named(name: torch.device | str) -> torch.device:
    """The device of this name. Raises InputError if it is neither a CPU nor a CUDA device."""
    with suppress(RuntimeError):
        device = torch.device(name)
        if device.type in ("cpu", "cuda"):
            return device
    raise InputError(f"device {name}: unknown; use cpu, cuda or cuda:N")


def device_seen(name: torch.device | str) -> torch.device:
    """The device of this name. Raises InputError for an unknown one, or a GPU that torch does not see."""
    device = device_named(name)
    if device.type == "cuda":
        seen = torch.cuda.device_count()
        if not seen:
            raise InputError(
                f"device {name}: this torch sees no GPU; install a CUDA build of torch or use --device cpu"
            )
        if (device.index or 0) >= seen:
            raise InputError(f"device {name}: this torch sees cuda:0 to cuda:{seen - 1}; use one of them")
    return device


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """The ranks that `launch` or torchrun started (or one), and this rank's device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE, device_named(device)
        return
    die_with_parent()
    chosen = device_seen(f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # NCCL needs a GPU for each rank; all ranks share a GPU that is given by number.
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    wait, file = timedelta(seconds=_timeout()), os.environ.get(STORE)
    if file is None:  # torchrun's
        dist.init_process_group(backend, timeout=wait)
    else:
        store = dist.FileStore(file, world)  # type: ignore[attr-defined]
        rank = int(os.environ["RANK"])
        dist.init_process_group(backend, timeout=wait, store=store, rank=rank, world_size=world)
    try:
        yield Ranks(dist.get_rank(), world), chosen
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error) for sign in LOST):
            raise RunError("another process of the job has ended or hangs") from error
        raise
    finally:
        dist.destroy_process_group()


def rank_environment(rank: int, world: int, store: Path) -> dict[str, str]:
    """Environment of rank `rank` of `world` on this machine; the ranks find each other through the new file `store`.

    They listen on the loopback interface only.
    """
    (loopback, *_) = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")] or ["lo"]
    names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), STORE: str(store)}
    return names | dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), loopback)


def _timeout() -> float:
    given = os.environ.get("SPECTRALGRU_RANK_TIMEOUT", TIMEOUT_SECONDS)
    with suppress(ValueError):
        if 0 < float(given) < 1e9:
            return float(given)
    raise InputError(f"SPECTRALGRU_RANK_TIMEOUT={given}: give a number of seconds, for example 300")


def die_with_parent() -> None:
    """Kill this process when the one that started it dies (Linux), so that no rank outlives its launcher."""
    if hasattr(os, "uname") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
