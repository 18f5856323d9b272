"""Device ids for concurrent jobs: Snakemake counts GPUs but does not name them.

Every device has a lock file in the machine's temporary folder, held while a job uses the device; the operating system
frees it when the job dies.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spectralgru.errors import InputError
from spectralgru.training.locks import POLL_SECONDS, try_lock


def visible_devices() -> list[str]:
    """Ids of the devices this process may use: those of CUDA_VISIBLE_DEVICES, else all of the machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def gpu_slots(count: int, say: Callable[[str], None]) -> Iterator[list[str]]:
    """Ids of `count` devices that no other job has for as long as the block runs; waits until so many are free.

    Raises InputError if this machine has fewer.
    """
    if count == 0:
        yield []
        return
    devices = visible_devices()
    if len(devices) < count:
        raise InputError(
            f"{count} GPUs asked for, {len(devices)} visible ({', '.join(devices) or 'none'}); ask for fewer, or "
            "set CUDA_VISIBLE_DEVICES"
        )
    folder = Path(tempfile.gettempdir()) / "spectralgru-gpus"
    folder.mkdir(exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o1777)  # shared by all users of the machine
    held = _take(folder, devices, count)
    if not held:
        say(f"waiting for {count} of the GPUs {', '.join(devices)}")
    while not held:
        time.sleep(POLL_SECONDS)
        held = _take(folder, devices, count)
    try:
        yield list(held)
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _take(folder: Path, devices: list[str], count: int) -> dict[str, int]:
    """Lock `count` of the devices, or none."""
    held: dict[str, int] = {}
    for device in devices:
        descriptor = try_lock(folder / f"{device.replace('/', '-')}.lock") if len(held) < count else None
        if descriptor is not None:
            held[device] = descriptor
    if len(held) == count:
        return held
    for descriptor in held.values():
        os.close(descriptor)
    return {}
