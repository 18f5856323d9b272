"""Numbers in README and results trace to the records that they name, or to what is known of the paper."""

import csv
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/results.md")
NUMBER = re.compile(r"(?<![\w.,-])(?<!Python )(?<!NIPS )(?:\d+\.\d+|\d{1,3},\d{3}|\d{3,})(?![\w.,]*[\w/])")
ANY = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE]-?\d+)?")
RECORD = re.compile(r"reproduction/([\w-]+)/README\.md")
# One line for every run, epoch or step says too much: almost any number is among them.
MANY = ("history.csv", "steps.csv", "runs.csv", "burst.csv", "polyphonic.csv")
SETTINGS = {
    0.2,
    0.5,
    0.8,
    1.1,
    1.4,
    0.01,
    650,
    10_000,
}  # deltas, factor of the inputs, units, words of the paper


def numbers(text):
    return [float(number.replace(",", "")) for number in ANY.findall(text)]


@cache
def known(name):
    """The numbers of a record, as its README, tables, claims and answers say them."""
    files = [p for p in (ROOT / "reproduction" / name).rglob("*") if p.suffix in (".md", ".csv", ".json")]
    kept = [p for p in files if p.name not in MANY and p.name != "provenance.json"]
    return [number for path in kept for number in numbers(path.read_text())]


def said(page):
    """Each number of three digits or with a fraction, and the records named in its part of the page or before."""
    records = ()
    for part in re.split(r"\n\n|\n(?=- )", (ROOT / page).read_text()):
        text = re.sub(r"```.*?```|\]\([^)]*\)", "", part, flags=re.DOTALL)
        records = tuple(RECORD.findall(part)) or records
        for number in NUMBER.findall(text):
            yield number, records, part


@pytest.mark.parametrize("page", PAGES)
def test_every_number_is_in_a_record_that_is_named(page):
    paper = numbers((ROOT / "resources/paper.yaml").read_text())
    found = list(said(page))
    assert len(found) > 5
    unknown = []
    for number, records, part in found:
        value, digits = float(number.replace(",", "")), len(number.partition(".")[2])
        candidates = [*paper, *SETTINGS, *(n for record in records for n in known(record))]
        if not any(abs(abs(n) - value) <= 0.5 * 10**-digits + 1e-9 for n in candidates):
            unknown.append((number, records, part[:60]))
    assert not unknown


def test_a_number_of_nobody_is_noticed():
    assert not any(abs(n - 7.77) <= 0.005 for n in known("2026-11-23-nottingham-one-layer"))


def measured(record):
    """The numbers in a record's tables and claims, and the largest spectral radius of each run."""
    yield from numbers((ROOT / "resources/paper.yaml").read_text())
    for path in record.rglob("*"):
        if path.suffix == ".csv" and path.name not in MANY:
            yield from numbers(path.read_text().replace(",", " "))
        elif path.name == "runs.csv":
            rows = csv.DictReader(path.read_text().splitlines())
            yield from (float(row["spectral_radius_max"]) for row in rows if row.get("spectral_radius_max"))
        elif path.name in ("claims.json", "metrics.json"):
            yield from numbers(path.read_text())


@pytest.mark.parametrize(
    "record", sorted(p.parent for p in ROOT.glob("reproduction/*/answer.json")), ids=lambda p: p.name
)
def test_answers_of_kept_records_are_borne_out_by_their_runs(record):
    """Report and article repeat them."""
    known = {abs(number) for number in measured(record)} | SETTINGS
    text = " ".join(json.loads((record / "answer.json").read_text())["answer"])
    told = [(float(n.replace(",", "")), 10 ** -len(n.partition(".")[2])) for n in NUMBER.findall(text)]
    assert told
    assert [value for value, unit in told if not any(abs(n - value) <= unit / 2 for n in known)] == []
