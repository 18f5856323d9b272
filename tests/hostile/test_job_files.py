"""Job files as no one should write them: refused in one line before anything is read or written."""

import copy
import json
import math
import random
from dataclasses import asdict
from pathlib import Path

import pytest
from limits import limited, one_clear_line

import tiny
from spectralgru.errors import InputError
from spectralgru.records import run_path
from spectralgru.training.__main__ import main
from spectralgru.training.job_file import job_from_dict, read_job

JOB = json.loads(json.dumps(asdict(tiny.job("ptb", tiny.EVERY_METHOD))))
ODD = (
    *(
        None,
        True,
        0,
        -1,
        2**31,
        2**63,
        10**90,
        10**400,
        0.5,
        1e308,
        5e-324,
        math.nan,
        -math.inf,
        "",
        "x" * 5000,
    ),
    *(
        "../../../../ESCAPE",
        "/ESCAPE",
        "..",
        ".",
        "a/b",
        "a\0b",
        "\ud800",
        "\x1b[31m\n",
        "constraint",
        "orthogonal",
    ),
    *([], {}, [None], [[]] * 300, {"a": {}}, {"method": "none"}, 3, 0.2),
)
TEXTS = (
    *(
        "",
        "{",
        "null",
        "3",
        "[]",
        '"job"',
        "{}",
        "NaN",
        "[" * 100_000,
        '{"a":' * 20_000,
        "9" * 5000,
        "\ufeff{}",
    ),
    '{"corpus": "ptb", "corpus": "../x"}',
)


def places(node, at=()):
    for key in node if isinstance(node, dict) else range(len(node)):
        yield (*at, key)
        if isinstance(node[key], dict | list):
            yield from places(node[key], (*at, key))


PLACES = list(places(JOB))


def changed(rng):
    """A copy of a job with something taken out, replaced, added or repeated."""
    job = copy.deepcopy(JOB)
    *path, last = rng.choice(PLACES)
    node = job
    for key in path:
        node = node[key]
    kind = rng.randrange(4)
    if kind == 0:
        del node[last]
    elif kind == 3 and isinstance(node, list):
        node.append(node[last])
    elif kind == 3:
        node[rng.choice(["", "size", "__class__", "x" * 500])] = rng.choice(ODD)
    else:
        node[last] = rng.choice(ODD)
    return json.dumps(job)


def texts():
    rng = random.Random(11)
    yield from TEXTS
    for _ in range(100):
        yield changed(rng)
    for _ in range(50):
        text = json.dumps(JOB)
        at = rng.randrange(len(text))
        yield text[:at] + rng.choice(["", "}", '"', "\0", "1e999", ","]) + text[at + rng.randrange(5) :]


def test_any_job_file_is_a_job_or_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, accepted, refused = tmp_path / "job.json", 0, 0
    for text in texts():
        file.write_bytes(text.encode(errors="surrogatepass"))
        with limited(seconds=5, megabytes=512):
            try:
                job = read_job(file)
            except InputError:
                refused += 1
                assert main([str(file), "--out", "out", "--checkpoints", "checkpoints"]) == 2
                said = capsys.readouterr().err
                assert said.startswith(f"spectralgru: {file}: ")
                assert one_clear_line(said.strip()), text[:500]
            else:
                accepted += 1
                for r in job.replicas:
                    path = tmp_path / run_path("out", job.corpus, r.method, r.value, r.seed)
                    assert path.resolve().is_relative_to(tmp_path / "out/runs")
    assert accepted > 5
    assert refused > 100
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "replicas.0.method",
            "../../../../ESCAPE",
            r"replicas\.0\.method is '\.\./.*ESCAPE': must be one of constr",
        ),
        ("training.gates", 1e300, r"training\.gates is 1e\+300: must be less than"),
        (
            "replicas.0.method",
            "orthogonal",
            r"replicas\.0\.method is 'orthogonal': must be one of constraint, ",
        ),
        ("replicas.0.value", 2.5, r"replicas\.0\.value is 2\.5: must be less than 2"),
        ("replicas.0.value", None, r"replicas\.0\.value is None: must be a finite number"),
        ("replicas.2.value", 1.0, r"replicas\.2\.value is 1\.0: must be null"),
        ("replicas.0.seed", -1, r"replicas\.0\.seed is -1: must be at least 0"),
        ("replicas.0.seed", True, r"replicas\.0\.seed is True: must be a whole number"),
        ("replicas.1", JOB["replicas"][0], r"constraint-0\.2 seed 0 appears twice among the replicas"),
        ("replicas", [], r"replicas is \[\]: must hold one run or more"),
        ("corpus", "../x", r"corpus is '\.\./x': must be a name"),
        ("model.hidden_size", 1.5, r"model\.hidden_size is 1\.5: must be a whole number"),
        ("model.dropout", 1, r"model\.dropout is 1: must be less than 1"),
        ("data", None, r"data is None: must be an object"),
        (
            "training.schedule.kind",
            ["decay"],
            r"training\.schedule\.kind is \['decay'\]: must be one of decay, plat",
        ),
        ("training.schedule.steps", 3, r"unknown key training\.schedule\.'steps'"),
        ("training.learning_rate", 10**400, r"training\.learning_rate is 1000.*: must be a finite number"),
    ],
)
def test_the_line_names_key_value_and_what_is_allowed(key, value, message):
    job = copy.deepcopy(JOB)
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    node = job
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(InputError, match=message):
        job_from_dict(job)


def test_a_key_that_is_missing_or_stands_twice_is_named(tmp_path):
    job = copy.deepcopy(JOB)
    del job["training"]["schedule"]["kind"]
    with pytest.raises(InputError, match=r"key training\.schedule\.kind is missing"):
        job_from_dict(job)
    Path(tmp_path / "job.json").write_text('{"corpus": "ptb", "corpus": "ptb"}')
    with pytest.raises(InputError, match="key corpus appears twice"):
        read_job(tmp_path / "job.json")


def test_a_job_is_read_as_it_was_written():
    assert job_from_dict(JOB) == tiny.job("ptb", tiny.EVERY_METHOD)
