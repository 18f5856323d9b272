"""Piano rolls of Boulanger-Lewandowski et al. (2012) as MATLAB files: columns are the MIDI numbers 21-108."""

import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from spectralgru.errors import InputError
from spectralgru.training.data.dataset import SPLITS

NOTES = 88
LOWEST = 21
MEMORY, SECONDS = (
    2 << 30,
    120,
)  # limits (bytes, CPU seconds) for reading a file; the largest takes 0.4 GB and 1 s


def read(path: Path) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """The tunes of each split in the published order, uint8 [steps, 88].

    Raises InputError if the file is missing, damaged or of another kind. scipy's reader crashes on some damaged files
    and takes unlimited memory on others, so it runs in a separate process with limits.
    """
    remedy = "delete it and fetch it again"
    if not path.is_file():
        raise InputError(f"{path}: no such file; fetch it")
    try:
        with ProcessPoolExecutor(1, initializer=_limit) as pool:
            return pool.submit(_read, path).result()
    except BrokenProcessPool:
        raise InputError(f"{path}: damaged: reading it crashes or never ends; {remedy}") from None
    except KeyError as error:
        raise InputError(f"{path}: no variable {error}; {remedy}") from None
    except Exception as error:  # scipy raises anything: ValueError, zlib.error, OverflowError, its own
        raise InputError(
            f"{path}: damaged, or not a MATLAB file of piano rolls ({error}); {remedy}"
        ) from None


def _limit() -> None:
    if sys.platform != "linux":
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(path: Path) -> dict[str, list[npt.NDArray[np.uint8]]]:
    with path.open("rb") as file:
        cells = loadmat(file, variable_names=[f"{split}data" for split in SPLITS])
    tunes = {split: [np.asarray(tune) for tune in cells[f"{split}data"][0]] for split in SPLITS}
    for split, rolls in tunes.items():
        for place, tune in enumerate(rolls):
            if tune.ndim != 2 or tune.shape[1] != NOTES or not np.isin(tune, (0, 1)).all():
                raise ValueError(f"tune {place} of {split} is not a 0/1 roll [steps, {NOTES}]")
    return {split: [tune.astype(np.uint8) for tune in rolls] for split, rolls in tunes.items()}
