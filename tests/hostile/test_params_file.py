"""params.yaml as it must never be: thousands of seeded variants, each accepted or refused in one line."""

import copy
import math
import random
import string
from pathlib import Path

import pytest
import yaml
from limits import limited, one_clear_line
from ruamel.yaml import YAML

from spectralgru.errors import InputError
from spectralgru.pipeline.experiments.base import available
from spectralgru.pipeline.params import load_params, parse_params, with_changes
from spectralgru.pipeline.strict_yaml import parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())
ODD = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**90, -(10**90), 0.1234567, 1e308, 5e-324),
    *(
        math.nan,
        math.inf,
        -math.inf,
        "",
        "ptb",
        "constraint",
        "x" * 10_000,
        "\ud800",
        "\x1b[31mred\n",
        "ä" * 300,
    ),
    *("../../../../ESCAPE", "{}", "%s", "1e-4", "0x10", b"bytes", (), {1, 2}, 1j),
    *(
        [],
        {},
        [[]] * 500,
        [0.2] * 500,
        list(range(5000)),
        {"a": {"b": {}}},
        {"": 1},
        {None: 1},
        {3: 4},
        {"\n": 1},
    ),
)
MACROS = """\
__use_yte__: true
__definitions__:
  - import os
  - os.system("touch ESCAPE")
?if __import__("os").system("touch ESCAPE"):
  scale: quick
"""
SNIPPETS = (
    *(
        '!!python/object/apply:os.system ["touch ESCAPE"]',
        "!!bool maybe",
        "!!int ''",
        "!!float x",
        "!!timestamp x",
    ),
    *(
        "!!binary é",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!null [1]",
        "!unknown x",
        "2026-02-30",
        "1:1:1",
        "0x1F",
    ),
    *(".nan", "-.inf", "1e400", "9" * 5000, "0x" + "f" * 5000, "*nobody", "&a [*a]", "&a {a: *a}", "{<<: 1}"),
    *(
        "[" * 5000,
        "{a: " * 5000,
        "- " * 5000,
        "'",
        '"\\uD800"',
        '"\\e[31m"',
        "\0",
        "\ufeff",
        "\u2028",
        "\t- x",
    ),
    *(
        "{a: 1, a: 2}",
        "{? [a]: 1}",
        "{{a: 1}: 2}",
        "---\n",
        "...\n",
        "%YAML 9.9\n",
        "|\n",
        ": : :",
        "yes",
        "~",
    ),
    "{a0: &a0 [x, x, x, x, x, x, x, x, x], "
    + ", ".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(9))
    + "}",
    "{a0: &a0 [x], " + ", ".join(f"a{i + 1}: &a{i + 1} [*a{i}]" for i in range(900)) + "}",
    "[" + "1, " * 60_000 + "]",
    MACROS,
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """What is written shows."""
    monkeypatch.chdir(tmp_path)


def verdict(read):
    """What becomes of a variant: params that the rest of the pipeline can use, or one line."""
    with limited(seconds=10, megabytes=512):
        try:
            params = read()
            for corpus in params.chosen_corpora():
                params.job(corpus, params.settings(corpus))
                params.run_directories(corpus)
            available(params)
        except InputError as error:
            message = str(error)
        else:
            return "accepted"
    assert one_clear_line(message), message[:2000]
    return "refused"


def places(node, at=()):
    """Every place in nested values."""
    for key in node if isinstance(node, dict) else range(len(node)):
        yield (*at, key)
        if isinstance(node[key], dict | list):
            yield from places(node[key], (*at, key))


PLACES = list(places(VALUES))


def changed(rng):
    """A copy of the values with one to three of them taken out, replaced, added or moved."""
    values = copy.deepcopy(VALUES)
    for _ in range(rng.randint(1, 3)):
        *path, last = rng.choice(PLACES)
        node = values
        try:
            for key in path:
                node = node[key]
            match rng.randrange(5):
                case 0:
                    del node[last]
                case 1 | 2:
                    node[last] = copy.deepcopy(rng.choice(ODD))
                case 3:
                    node[rng.choice([last, "size", "__use_yte__", "", "x" * 500, 7, None])] = rng.choice(ODD)
                case 4:
                    node[last] = copy.deepcopy(VALUES[rng.choice(list(VALUES))])
        except (LookupError, TypeError):
            continue  # an earlier change took the place away
    return values


def test_values_of_any_kind_are_accepted_or_refused_in_one_line():
    rng = random.Random(17)
    verdicts = [verdict(lambda: parse_params(changed(rng))) for _ in range(1400)]
    assert verdicts.count("accepted") > 50
    assert verdicts.count("refused") > 1000
    assert not list(Path().iterdir())


def small():
    """The file with one corpus a scale: parsed in a fifth of the time."""
    values = copy.deepcopy(VALUES)
    for scale in ("quick", "paper"):
        section = values[scale] | {"run": ["ptb"]}
        section["settings"] = {"ptb": section["settings"]["ptb"]}
        section["experiments"] = {}
        values[scale] = section
    return yaml.safe_dump(values, sort_keys=False)


def misspelt(rng, text):
    """The text with something cut, doubled, put in or replaced."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    match rng.randrange(7):
        case 0:
            lines.insert(at, lines[at])  # a key twice
        case 1:
            del lines[at : at + rng.randint(1, 4)]
        case 2:
            key = lines[at].partition(":")[0]
            lines[at] = f"{key}: {rng.choice(SNIPPETS)}\n"
        case 3:
            lines.insert(at, f"{indent}{rng.choice(SNIPPETS)}\n")
        case 4:
            lines[at] = rng.choice([" ", "\t", "  ", "- "]) + lines[at]
        case 5:
            return MACROS + text if rng.random() < 0.3 else text[: rng.randrange(len(text))]
        case 6:
            for _ in range(rng.randint(1, 5)):
                at = rng.randrange(len(text))
                text = text[:at] + rng.choice(string.printable + "é\u202e\0\ud800") + text[at + 1 :]
            return text
    return "".join(lines)


def test_text_of_any_kind_is_accepted_or_refused_in_one_line(tmp_path):
    rng, text, file = random.Random(18), small(), tmp_path / "params.yaml"
    verdicts = []
    for _ in range(600):
        file.write_bytes(misspelt(rng, text).encode(errors="surrogatepass"))
        verdicts.append(verdict(lambda: load_params(file)))
    assert verdicts.count("accepted") > 10
    assert verdicts.count("refused") > 300
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet[:20].encode().hex())
def test_each_snippet_as_a_value_by_hand(snippet):
    params = parse_params(VALUES)
    verdict(lambda: with_changes(params, "ptb", [f"data.train={snippet}"]))
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", r"line 2, column 1: key 'a' appears twice in a mapping; remove one"),
        ("quick: {run: [ptb], 'run': [ptb]}", r"key 'run' appears twice"),
        ("a: !!bool maybe", r"line 1, column 4: 'maybe' is no bool"),
        ("a: &a [*a]", "an alias that contains itself"),
        ("[" * 200, "nested more than 40 deep"),
        ("- 1\n" * 25_000, "more than 20,000 values"),
        ("#" * 200_000, "longer than 131,072 bytes; shorten it"),
        ("__use_yte__: true\nscale: quick", r"unknown key __use_yte__|missing"),
    ],
)
def test_the_line_names_file_place_and_fault(tmp_path, text, message):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=rf"params\.yaml: .*{message}"):
        load_params(file)


NUMBERS = "0 5 +5 -5 1_000 010 00 09 0x1f 0b11 0o17 12:30 190:20:30 1:2.5 0.5 .5 5. -.5 1e3 1e-05 1.e+5 1e20 00.5 1_0.5"


@pytest.mark.parametrize("text", NUMBERS.split())
def test_a_number_is_what_it_is_to_dvc_or_none(text):
    value = parse_yaml(text, "x")
    assert isinstance(value, str) or value == YAML().load(f"a: {text}")["a"]
    assert not (text[0] == "0" and text[1:].isdigit()) or isinstance(value, str)


def test_what_dvc_writes_is_read(tmp_path):
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump({"values": [1e-5, 1e-4, 0.1, 1e20, 3, -2]}, file)
    assert read_yaml(tmp_path / "params.yaml") == {"values": [1e-5, 1e-4, 0.1, 1e20, 3, -2]}


def test_an_endless_file_is_refused():
    with limited(seconds=5, megabytes=256), pytest.raises(InputError, match="/dev/zero: longer than"):
        load_params(Path("/dev/zero"))
