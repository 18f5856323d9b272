"""Piano rolls of Boulanger-Lewandowski et al. (2012) as MATLAB files: columns are the MIDI numbers 21-108."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from spectralgru.errors import InputError
from spectralgru.training.data.dataset import SPLITS

NOTES = 88
LOWEST = 21


def read(path: Path) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """The tunes of each split in the published order, uint8 [steps, 88].

    Raises InputError if the file is missing, damaged, or holds something else.
    """
    remedy = "delete it and fetch it again"
    try:
        with path.open("rb") as file:
            cells = loadmat(file)
        tunes = {split: [np.asarray(tune) for tune in cells[f"{split}data"][0]] for split in SPLITS}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch it") from None
    except KeyError as error:
        raise InputError(f"{path}: no variable {error}; {remedy}") from None
    except (MatReadError, ValueError, TypeError, NotImplementedError, OSError, IndexError) as error:
        raise InputError(f"{path}: damaged, or not a MATLAB file ({error}); {remedy}") from None
    for split, rolls in tunes.items():
        for place, tune in enumerate(rolls):
            if tune.ndim != 2 or tune.shape[1] != NOTES or not np.isin(tune, (0, 1)).all():
                raise InputError(
                    f"{path}: tune {place} of {split} is not a 0/1 roll [steps, {NOTES}]; {remedy}"
                )
    return {split: [tune.astype(np.uint8) for tune in rolls] for split, rolls in tunes.items()}
