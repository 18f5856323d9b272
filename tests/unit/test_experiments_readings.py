"""Other readings of the network: trained, tabulated and judged beside the first, each at its own depth."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from spectralgru.errors import InputError
from spectralgru.pipeline.experiments import base
from spectralgru.pipeline.params import Params, parse_params
from spectralgru.records import read_run

ROOT = Path(__file__).parents[2]


def tiny_params(**settings: Any) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    quick = values["quick"] | {"run": ["chorales"], "seeds": [0, 1]}
    music = quick["settings"]["chorales"]
    music["methods"] = {"constraint": [0.2], "clipping": [15], "none": False}
    music["model"]["hidden_size"] = music["readings"]["two_layers"]["hidden_size"] = 8
    music["training"] |= {"epochs": 2, "batch_size": 6, "bptt_steps": 10}
    music |= settings
    return parse_params(values | {"quick": quick})


def test_a_reading_is_trained_tabulated_and_judged(tmp_path: Path):
    tiny.write_corpora(tmp_path / "data")
    params = tiny_params()
    means = base.Means(tmp_path / "data", tmp_path / "out", tmp_path / "checkpoints", threads=1)
    parts = base.chosen_parts(params, "readings")
    assert [part.name for part in parts] == ["two_layers.constraint-0.2", "two_layers.clipping-15"]
    for part in parts:
        base.make_part(params, "readings", part, means)
    summary = base.conclude(params, "readings", means.out)
    run = read_run(means.out / "two_layers/runs/chorales/constraint-0.2/seed-1")
    assert run.settings["model"]["num_layers"] == 2
    assert (
        run.settings["training"] == params.job("chorales", params.settings("chorales")).settings()["training"]
    )
    assert "2 GRU layers of 8 units" in (means.out / "table_chorales_two_layers.md").read_text()
    assert (means.out / "trajectory_chorales_two_layers.pdf").exists()
    assert {claim["reading"] for claim in summary["claims"]} == {"two_layers"}
    assert "constraint-beats-clipping" in {claim["id"] for claim in summary["claims"]}


def test_a_corpus_without_readings_has_none_to_make():
    params = tiny_params(readings={})
    assert "readings" not in base.available(params)
    with pytest.raises(InputError, match="no settings of chorales have any"):
        base.chosen_parts(params, "readings")


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        ({"Two layers": {"hidden_size": 8}}, "readings.Two layers"),
        ({"two_layers": {"num_layers": 2}}, "readings.two_layers.hidden_size is missing"),
        ({"two_layers": {"hidden_size": 8, "layers": 2}}, "unknown key"),
    ],
)
def test_a_bad_reading_is_named(readings: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        tiny_params(readings=readings)
