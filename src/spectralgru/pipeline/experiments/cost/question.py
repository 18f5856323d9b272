"""What a training step costs with each method, measured during a real training (the paper's Table 3).

A part is one delta on one corpus. Its training uses the engine's own projection, and at every step all other forms of
the projection are applied to the same matrix. Times are CPU time of one thread.
"""

import hashlib
import json
import os
import socket
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.files import sha256_of_all
from spectralgru.pipeline.experiments.base import Answer, Means, Part, of_chosen_corpora
from spectralgru.pipeline.params import Params
from spectralgru.pipeline.params.experiments import CostOf
from spectralgru.setting import number
from spectralgru.training.settings import Replica, code_sha256

SEED = 0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CODE = ("question.py", "metered.py", "truncated.py")


def parts(params: Params) -> list[Part]:
    """One part for each corpus and delta."""
    return [Part(corpus, _name(delta)) for corpus, of in _networks(params).items() for delta in of.deltas]


def key(params: Params, part: Part, data_sha256: str) -> str:
    """Hash of settings, data, the trainer's code and this code, but not of the machine, which the record names."""
    network = _networks(params)[part.corpus].model_dump(exclude={"deltas"})
    training = asdict(params.of_corpus(part.corpus).training)
    code = [code_sha256(), sha256_of_all(Path(__file__).parent, CODE)]
    determined = [part.corpus, part.name, network, training, data_sha256, code]
    return hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()


def make(params: Params, part: Part, means: Means) -> dict[str, Any]:
    """Train and time; `steps` holds CPU seconds of every timed step."""
    if not any(os.environ.get(name) == "1" for name in ONE_THREAD):
        raise InputError(
            "OMP_NUM_THREADS is not 1: timings are of one thread; set it and run the same command again"
        )
    import scipy
    import torch

    from spectralgru.pipeline.experiments.cost.metered import metered_steps
    from spectralgru.training import environment
    from spectralgru.training.data.dataset import load
    from spectralgru.training.data.loading import subset

    torch.set_num_threads(1)
    network, training = _networks(params)[part.corpus], params.of_corpus(part.corpus).training
    delta = next(delta for delta in network.deltas if _name(delta) == part.name)
    corpus = load(means.data / "prepared" / f"{part.corpus}.npz")
    steps = metered_steps(
        subset(corpus, network.data),
        network.model,
        Replica("constraint", delta, SEED, training.learning_rate),
        training.batch_size,
        training.bptt_steps,
        network.warm_up,
    )
    return {
        "corpus": part.corpus,
        "delta": delta,
        "steps": list(islice(steps, network.steps)),
        "machine": {
            "host": socket.gethostname(),
            "device": environment.device_name(torch.device("cpu")),
            "threads": 1,
            "versions": environment.versions() | {"scipy": scipy.__version__},
            "git_commit": environment.git_commit(),
        },
    }


def conclude(params: Params, out: Path) -> Answer:
    """Table 3, a figure, and what they show."""
    from spectralgru.pipeline.experiments.cost.results import sum_up

    return sum_up(parts(params), _networks(params), out)


def _name(delta: float) -> str:
    return f"delta-{number(delta)}"


def _networks(params: Params) -> dict[str, CostOf]:
    settings = params.section.experiments.cost
    return of_chosen_corpora(params, settings.corpora if settings else {})
