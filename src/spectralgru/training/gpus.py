"""Device ids for concurrent jobs: Snakemake counts GPUs but does not name them.

Every device has a lock file in a private folder of the user, in the machine's temporary folder. A job holds the lock
while it uses the device; the operating system frees it when the job dies. Users do not see each other's locks.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from spectralgru.errors import InputError
from spectralgru.files import private_folder
from spectralgru.training.locks import POLL_SECONDS, try_lock


def visible_devices() -> list[str]:
    """Ids of the devices this process may use: those in CUDA_VISIBLE_DEVICES, or else all in the machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def gpu_slots(count: int, say: Callable[[str], None]) -> Iterator[list[str]]:
    """Ids of `count` devices reserved for this job while the block runs; waits until that many are free.

    Raises InputError if this machine has fewer, RunError if the folder of locks is not private to this user.
    """
    if count == 0:
        yield []
        return
    devices = visible_devices()
    if len(devices) < count:
        raise InputError(
            f"{count} GPUs requested, {len(devices)} visible ({', '.join(devices) or 'none'}); ask for fewer, or "
            "set CUDA_VISIBLE_DEVICES"
        )
    folder = private_folder(Path(tempfile.gettempdir()) / f"spectralgru-gpus-{os.geteuid()}")
    held = _take(folder, devices, count)
    if not held:
        say(f"waiting for {count} of the GPUs {', '.join(devices)}")
    while not held:
        time.sleep(POLL_SECONDS)
        held = _take(folder, devices, count)
    try:
        yield list(held)
    finally:
        for lock in held.values():
            lock.release()


def _take(folder: Path, devices: list[str], count: int) -> dict[str, FileLock]:
    """Lock `count` of the devices, or none."""
    held: dict[str, FileLock] = {}
    for device in devices:
        lock = try_lock(folder / f"{device.replace('/', '-')}.lock") if len(held) < count else None
        if lock is not None:
            held[device] = lock
    if len(held) == count:
        return held
    for lock in held.values():
        lock.release()
    return {}
