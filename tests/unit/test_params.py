import copy
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from results_records import make_run
from spectralgru.errors import InputError
from spectralgru.pipeline.params import json_schema, load_params, parse_params, parse_setting, with_changes
from spectralgru.pipeline.results.load import Campaign
from spectralgru.pipeline.results.tables import write_tables
from spectralgru.setting import Setting
from spectralgru.training.job_file import job_from_dict

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())


def changed(path: str, value: object) -> dict:
    values = copy.deepcopy(VALUES)
    node = values
    *keys, last = path.split(".")
    for key in keys:
        node = node[key]
    node[last] = value
    return values


def test_the_file_of_the_repository_is_valid_and_holds_both_scales():
    params = load_params(ROOT / "params.yaml")
    assert params.scale == "quick"
    assert params.chosen_corpora() == ["ptb", "chorales"]
    assert len(params.section.seeds) >= 3
    paper = load_params(ROOT / "params.yaml", {"scale": "paper"})
    assert paper.chosen_corpora() == ["ptb", "nottingham"]
    assert len(paper.job("ptb", paper.settings("ptb")).replicas) == 100


def test_the_paper_scale_has_the_papers_settings():
    paper = load_params(ROOT / "params.yaml", {"scale": "paper"})
    ptb, music = paper.of_corpus("ptb"), paper.of_corpus("nottingham")
    assert (ptb.model.hidden_size, ptb.model.num_layers, ptb.training.epochs) == (650, 1, 75)
    assert (music.model.hidden_size, music.model.num_layers) == (200, 1)  # recalled are two: docs/method.md
    assert ptb.methods.constraint == music.methods.constraint == [0.2, 0.5, 0.8, 1.1, 1.4]
    assert ptb.methods.clipping == [5, 10, 15, 20]
    assert music.methods.clipping == [15, 30, 45, 60]


DELTAS = "quick.settings.ptb.methods.constraint"
RATES = "quick.experiments.learning_rate.corpora.ptb.rates"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (DELTAS, [2.5], r"constraint\.0 is 2\.5: must be less than 2"),
        (DELTAS, [0], r"constraint\.0 is 0: must be greater than 0"),
        (DELTAS, ["x"], r"constraint\.0 is 'x': must be a valid number"),
        (DELTAS, ["2e-1"], r"constraint\.0 is '2e-1', text to YAML; .* without quotes"),
        (DELTAS, [0.2, 0.2], r"constraint is \[0\.2, 0\.2\]: every entry may appear once"),
        ("quick.settings.ptb.methods.clipping", [-5], r"clipping\.0 is -5: must be greater than 0"),
        ("quick.settings.ptb.training.gates", 1e300, r"gates is 1e\+300: must be less than 1000000"),
        (
            "quick.settings.ptb.training.gates",
            1e-300,
            r"gates is 1e-300: must be greater than or equal to 0\.000001",
        ),
        ("quick.settings.ptb.training.learning_rate", True, r"learning_rate is True: must be a valid number"),
        ("quick.settings.ptb.training.epochs", "6", r"epochs is '6': must be a valid integer"),
        ("quick.settings.ptb.model.dropout", 1.0, r"dropout is 1\.0: must be less than 1"),
        ("quick.seeds", [1, 1], r"quick\.seeds is \[1, 1\]: every entry may appear once"),
        ("quick.seeds", [], r"quick\.seeds is \[\]"),
        ("quick.treads", 2, r"unknown key quick\.treads"),
        ("scale", "huge", r"scale is 'huge': must be 'quick' or 'paper'"),
        ("corpora", ["bach"], r"corpora\.0 is 'bach'"),
        ("corpora", [], r"corpora is \[\]"),
        ("corpora", ["ptb", "ptb"], r"corpora is \['ptb', 'ptb'\]: every entry may appear once"),
        ("quick.settings", {}, r"ptb is to run, but quick\.settings has only"),
        ("experiments", ["weather"], r"experiments\.0 is 'weather': must be 'learning_rate', "),
        ("experiments", ["cost", "cost"], r"experiments is .*: every entry may appear once"),
        (
            RATES,
            [0.5, 1, 2],
            r"rates is \[0\.5, 1, 2\]: the highest rate must be at least 128 times .* the lowest",
        ),
        (
            RATES,
            [2**i for i in range(-4, 2)] + [8],
            r"rates is .*: no rate may be more than twice the one before",
        ),
        (RATES, [2**i for i in range(3, -6, -1)], r"rates is .*: rates must ascend"),
        (RATES, [], r"rates is \[\]: the highest rate must be"),
        ("quick.experiments.cost.corpora.ptb.deltas", [], r"deltas is \[\]"),
        (
            "quick.experiments.cost.corpora.ptb.every",
            2,
            r"unknown key quick\.experiments\.cost\.corpora\.ptb\.every",
        ),
    ],
)
def test_a_fault_becomes_one_line_that_names_key_value_and_remedy(key, value, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_params(changed(key, value))
    assert "\n" not in str(caught.value)


def test_an_experiment_needs_settings_at_the_scale_chosen():
    values = changed("quick.experiments", {})
    values["experiments"] = ["cost"]
    with pytest.raises(InputError, match=r"cost is to run, but quick\.experiments has no settings for it"):
        parse_params(values)
    assert parse_params(values | {"scale": "paper"}).experiments == ["cost"]


def test_the_corpora_of_an_experiment_need_settings():
    values = changed("quick.settings", {"ptb": VALUES["quick"]["settings"]["ptb"]})
    values["corpora"] = ["ptb"]
    with pytest.raises(InputError, match=r"names chorales, which quick\.settings lacks"):
        parse_params(values)


def test_one_experiment_may_be_named_without_a_list():
    assert load_params(ROOT / "params.yaml", {"experiments": "cost"}).experiments == ["cost"]
    assert load_params(ROOT / "params.yaml").experiments == []


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_delta_must_lie_between_0_and_2(delta):
    if 0 < delta < 2:
        assert parse_params(changed(DELTAS, [delta])).settings("ptb")[0] == ("constraint", delta)
    else:
        with pytest.raises(InputError):
            parse_params(changed(DELTAS, [delta]))


def test_a_missing_key_a_missing_file_and_broken_yaml(tmp_path):
    values = copy.deepcopy(VALUES)
    del values["quick"]["settings"]["ptb"]["training"]
    with pytest.raises(InputError, match=r"key quick\.settings\.ptb\.training is missing"):
        parse_params(values)
    with pytest.raises(InputError, match="cannot be read"):
        load_params(tmp_path / "params.yaml")
    for content in (b"scale: [", b"- 1", b"\xff\xfe\x00", b"scale: 2026-02-30"):
        (tmp_path / "params.yaml").write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(tmp_path / "params.yaml"))):
            load_params(tmp_path / "params.yaml")


def test_one_corpus_by_name_is_a_list_of_one():
    assert parse_params({**VALUES, "corpora": "nottingham"}).chosen_corpora() == ["nottingham"]


def test_changes_by_hand_are_validated_too():
    params = parse_params(VALUES)
    job = with_changes(params, "ptb", ["training.epochs=2", "model.hidden_size=16"]).job(
        "ptb", [("none", None)], [7]
    )
    assert (job.training.epochs, job.model.hidden_size, job.replicas[0].seed) == (2, 16, 7)
    changes = ["training.epochs=0", "training.epoch=2", "nonsense", "a.b.c=1"]
    for change in [*changes, "training.epochs=[1", "training.epochs=2026-02-30"]:
        with pytest.raises(InputError, match="--set") as caught:
            with_changes(params, "ptb", [change])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([0, 0], r"--seeds is \[0, 0\]: every entry may appear once"),
        ([3, -1], r"--seeds\.1 is -1: must be greater than or equal to 0"),
        ([10**23], r"--seeds\.0 is 10+: must be less than 2147483648"),
    ],
)
def test_seeds_by_hand_are_validated_as_those_of_the_file(seeds, message):
    with pytest.raises(InputError, match=message):
        parse_params(VALUES).job("ptb", [("none", None)], seeds)
    with pytest.raises(InputError, match=message.replace("--seeds", r"quick\.seeds")):
        parse_params(changed("quick.seeds", seeds))


def test_settings_by_hand():
    assert parse_setting("constraint", 0.2) == ("constraint", 0.2)
    assert parse_setting("none", None) == ("none", None)
    for method, value in (
        ("constraint", 2.0),
        ("constraint", None),
        ("none", 1.0),
        ("clip", 5.0),
        ("clipping", 0.0),
    ):
        with pytest.raises(InputError):
            parse_setting(method, value)


@given(st.sampled_from(["constraint", "clipping"]), st.floats(1e-300, 1.9999999))
def test_a_setting_is_trained_and_named_by_exactly_the_value_given(method, value):
    setting = parse_setting(method, value)
    assert Setting.parse(setting.name) == setting == (method, value)
    assert setting.name not in {parse_setting(method, math.nextafter(value, to)).name for to in (0, 2)}


def test_names_of_settings_are_short_and_names_that_are_none_are_refused():
    names = [
        "constraint-0.2",
        "clipping-5",
        "clipping-0.1234567",
        "none",
        "weight_decay-0.0001",
        "orthogonal",
    ]
    assert [Setting.parse(name).name for name in names] == names
    assert Setting("clipping", 5.0).name == Setting("clipping", 5).name == "clipping-5"
    for name in (
        "",
        "clip-5",
        "clipping-",
        "clipping-five",
        "clipping-5.0",
        "constraint-nan",
        "../none",
        "none-",
    ):
        with pytest.raises(InputError, match="setting"):
            Setting.parse(name)


def test_values_that_differ_in_the_seventh_digit_have_columns_of_their_own(tmp_path):
    settings = parse_params(changed(DELTAS, [0.2, 0.2000001])).settings("ptb")[:2]
    for setting in settings:
        make_run(tmp_path, "ptb", *setting, 0)
    table = pd.read_csv(write_tables(Campaign.load(tmp_path, {"ptb": settings}, [0], "quick"))[0])
    assert list(dict.fromkeys(table["setting"])) == ["constraint-0.2", "constraint-0.2000001"]


def test_a_job_survives_json():
    from dataclasses import asdict

    params = parse_params(VALUES)
    job = params.job("ptb", params.settings("ptb"))
    assert job_from_dict(json.loads(json.dumps(asdict(job)))) == job


def test_the_schema_in_the_tree_is_current():
    """After a change of spectralgru.pipeline.params: `make schema`."""
    assert json.loads((ROOT / "workflow/schemas/params.schema.json").read_text()) == json_schema()
