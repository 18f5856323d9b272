"""Every claim is driven to every verdict by records made for the purpose."""

import json
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from results_records import SETTINGS, make_campaign, make_run, reseal
from spectralgru.errors import InputError
from spectralgru.pipeline.results.claims.check import CHECKS, check_claims, claim_records, write_claims
from spectralgru.pipeline.results.claims.claim import signed_rank
from spectralgru.pipeline.results.claims.levels import correct, seeds_to_settle
from spectralgru.pipeline.results.claims.overview import Overview
from spectralgru.pipeline.results.claims.render import test_line as line_of
from spectralgru.pipeline.results.load import Campaign, RunFiles
from spectralgru.records import read_run, run_path
from spectralgru.setting import Setting

SEEDS = (0, 1, 2)
DELTAS = (0.2, 0.5, 0.8, 1.1, 1.4)
CHECK_OF = {claim.id: check for check in CHECKS for claim in check_claims({}, "ptb", [check])}


class Records:
    """Runs of one corpus in a folder, changed until a claim is what the test wants."""

    def __init__(self, root: Path, corpus: str = "ptb") -> None:
        self.root, self.corpus = root, corpus

    def run(self, method: str, value: float | None, seed: int, **options) -> Path:
        return make_run(self.root, self.corpus, method, value, seed, **options)

    def runs(self, method: str, *values: float | None, seeds=SEEDS, **options) -> None:
        for value in values:
            for seed in seeds:
                self.run(method, value, seed, **options)

    def edit(self, directory: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        change(pd.read_csv(directory / name, dtype=float)).to_csv(directory / name, index=False)
        reseal(directory)

    def claim(self, name: str) -> dict:
        """One claim, as on a page of its own."""
        (claim,) = correct(c.record() for c in check_claims(self.read(), self.corpus, [CHECK_OF[name]]))
        json.dumps(claim, allow_nan=False)
        return claim

    def page(self) -> list[dict]:
        claims = claim_records({self.corpus: self.read()})
        json.dumps(claims, allow_nan=False)
        return claims

    def read(self) -> dict[Setting, list[RunFiles]]:
        found: dict = {}
        for path in sorted(self.root.glob(f"runs/{self.corpus}/*/seed-*")):
            run = read_run(path)
            found.setdefault(Setting(run.method, run.value), []).append(RunFiles(path, run))
        return found


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "quick")


def test_never_diverges(records: Records):
    records.runs("constraint", 0.2, 0.5, seeds=range(2))
    claim = records.claim("constraint-never-diverges")
    assert claim["verdict"] == "undecided"  # four runs make nothing sure
    records.runs("constraint", *DELTAS)
    claim = records.claim("constraint-never-diverges")
    assert claim["verdict"] == "holds"
    assert claim["evidence"]["n"] == 15
    bound = 0.05 ** (1 / 15)  # Clopper-Pearson without a failure
    assert claim["evidence"]["numbers"]["success_rate_lower_bound"] == pytest.approx(bound, rel=1e-4)
    assert len(claim["evidence"]["runs"]) == 15
    records.run("constraint", 0.8, 1, diverged_in=3)
    claim = records.claim("constraint-never-diverges")
    assert claim["verdict"] == "fails"
    assert claim["evidence"]["numbers"]["deltas"]["0.8"]["diverged"] == 1


def test_a_broken_run_is_no_success_and_no_divergence_is_said_of_what_was_seen(records: Records):
    records.runs("constraint", *DELTAS)
    name = "constraint-never-diverges"
    seen = records.claim(name)["evidence"]["summary"]
    assert seen.startswith(
        "No divergence seen in 15 constrained runs of ptb (quick scale, 1 GRU layer): 0 lost, 0 br"
    )
    directory = run_path(records.root, "ptb", "constraint", 0.5, 1)
    best = read_run(directory).best
    reseal(directory, final=best | {"valid": 1.49 * best["valid"]})
    assert records.claim(name)["verdict"] == "holds"
    reseal(directory, final=best | {"valid": 1.51 * best["valid"]})
    claim = records.claim(name)
    assert claim["verdict"] == "fails"
    assert "0 were lost and 1 broke" in claim["evidence"]["summary"]
    assert claim["evidence"]["numbers"]["deltas"]["0.5"]["broken"] == 1
    records.runs("clipping", 5.0)
    of_constraint = [run for run in records.claim("smaller-delta-is-more-accurate")["evidence"]["runs"]]
    assert records.claim("smaller-delta-is-more-accurate")["evidence"]["n"] == len(of_constraint) - 1


def test_the_test_that_decided_is_printed(records: Records):
    """The opposite's p-value of a claim that fails, and an interval that leaves out zero just where it does."""
    for seed, noise in enumerate((-1.0, 0.0, 1.0)):
        records.run("constraint", 0.2, seed, best=(105, 100 + noise))
        records.run("clipping", 5.0, seed, best=(104, 97.9 + noise))
    claim = records.claim("constraint-beats-clipping")
    evidence = claim["evidence"]
    assert claim["verdict"] == "fails"
    assert evidence["p_value"] + evidence["p_opposite"] == pytest.approx(1)
    assert evidence["p_opposite"] < 0.05 < 2 * evidence["p_opposite"]
    assert evidence["numbers"]["difference_90"][0] > 0 > evidence["numbers"]["difference_95"][0]
    assert f"p = {evidence['p_opposite']:.2g} for the opposite" in line_of(claim)
    assert "90 % interval" in evidence["summary"]


def test_holms_correction_is_over_the_claims_of_a_page(records: Records):
    records.runs("constraint", *DELTAS)
    records.runs("clipping", 5.0, 20.0)
    records.runs("none", None, diverged_in=2)
    found = {claim["id"]: claim for claim in records.page()}
    tested = {id: c["evidence"] for id, c in found.items() if c["evidence"]["p_value"] is not None}
    two = {
        id: e["p_value"] if e["p_opposite"] is None else min(1, 2 * min(e["p_value"], e["p_opposite"]))
        for id, e in tested.items()
    }
    least = min(two, key=lambda id: two[id])
    assert tested[least]["p_holm"] == pytest.approx(min(1, two[least] * len(two)), rel=1e-4)
    certain = found["constraint-never-diverges"]
    assert certain["verdict"] == "holds"  # p = 0.8 ** 15 = 0.035 by itself
    assert certain["verdict_holm"] == "undecided"
    assert line_of(certain).endswith(": undecided")
    assert found["singular-values-within-bound"]["verdict_holm"] == "holds"  # no test, nothing to correct
    table = Overview.of(list(found.values()))
    assert table.experiments == ("ptb, quick scale, 1 layer",)
    assert dict(table.rows)[certain["statement"] + "†"] == ("✓ holds*",)


def test_an_undecided_claim_says_how_many_seeds_would_settle_it(records: Records):
    records.runs("constraint", 0.2, 0.5, seeds=range(2))
    claim = records.claim("constraint-never-diverges")
    assert claim["evidence"]["seeds_needed"] == 7  # 14 runs without a loss: 0.8 ** 14 < 0.05
    assert line_of(claim).endswith("about 7 seeds would settle it (2 here)")
    for seed, noise in enumerate((-1.0, 0.0, 1.0)):
        records.run("constraint", 0.2, seed, best=(105, 100 + noise))
        records.run("clipping", 5.0, seed, best=(104, 101 + noise))
    needed = records.claim("constraint-beats-clipping")["evidence"]["seeds_needed"]
    assert 8 <= needed <= 18  # d = 1: 13 a group by the textbook (one-sided, 80 %)
    assert seeds_to_settle(0.5, 3) is seeds_to_settle(0.04, 3) is None
    assert seeds_to_settle(0.05, 10) == 23  # (1.645 + 0.842)² / 1.645² = 2.29
    both_ways = claim["evidence"] | {"p_value": 1e-4, "p_opposite": 1e-4, "seeds_needed": None}
    assert line_of(claim | {"evidence": both_ways}).endswith("; the two tests contradict each other")


def test_prevents_explosion(records: Records):
    records.runs("constraint", 0.2, 0.5)
    assert records.claim("constraint-prevents-explosion")["verdict"] == "undecided"  # nothing to compare with
    records.runs("none", None, diverged_in=2)
    assert records.claim("constraint-prevents-explosion")["verdict"] == "holds"
    records.runs("none", None)
    records.runs("constraint", 0.2, 0.5, diverged_in=2)
    assert records.claim("constraint-prevents-explosion")["verdict"] == "fails"


def test_clipping_fails_at_large_thresholds(records: Records):
    records.runs("clipping", 5.0)
    assert records.claim("clipping-fails-at-large-thresholds")["verdict"] == "undecided"  # none is large
    records.runs("clipping", 15.0, 20.0)
    assert records.claim("clipping-fails-at-large-thresholds")["verdict"] == "fails"
    records.runs("clipping", 15.0, 20.0, diverged_in=3)
    claim = records.claim("clipping-fails-at-large-thresholds")
    assert claim["verdict"] == "holds"
    assert claim["evidence"]["numbers"]["thresholds"]["15"] == {
        "runs": 3,
        "diverged": 3,
        "lost": 3,
        "broken": 0,
        "paper_success_rate": 0.0,
    }
    records.run("clipping", 15.0, 0)
    records.run("clipping", 20.0, 1)
    assert records.claim("clipping-fails-at-large-thresholds")["verdict"] == "undecided"


def test_clipping_is_not_said_to_fail_on_music(tmp_path: Path):
    records = Records(tmp_path, "chorales")
    records.runs("clipping", 60.0, diverged_in=2)
    assert "clipping-fails-at-large-thresholds" not in {claim["id"] for claim in records.page()}


@pytest.mark.parametrize(
    ("clipped", "verdict"), [(110.0, "holds"), (90.0, "fails"), (100.2, "undecided")], ids=str
)
def test_best_against_best(records: Records, clipped: float, verdict: str):
    for seed, noise in enumerate((-1.0, 0.0, 1.0)):
        records.run("constraint", 0.2, seed, best=(105 + noise, 100 + noise))
        # Better on the test set, worse on validation: choosing it would be choosing on the test set.
        records.run("constraint", 0.5, seed, best=(120.0, 50 + noise))
        records.run("clipping", 5.0, seed, best=(104 + noise, clipped + noise))
        records.run("clipping", 10.0, seed, best=(130.0, 10 + noise))
    claim = records.claim("constraint-beats-clipping")
    numbers = claim["evidence"]["numbers"]
    assert (numbers["constraint"]["setting"], numbers["clipping"]["setting"]) == (
        "constraint-0.2",
        "clipping-5",
    )
    assert numbers["difference"] == pytest.approx(100 - clipped)
    assert claim["verdict"] == verdict
    assert len(claim["evidence"]["runs"]) == 6


def test_one_seed_compares_nothing(records: Records):
    records.runs("constraint", 0.2, seeds=[0])
    records.runs("clipping", 5.0, seeds=[0])
    assert records.claim("constraint-beats-clipping")["verdict"] == "undecided"
    assert records.claim("smaller-delta-is-more-accurate")["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        ((100, 102, 104, 106, 108), "holds"),
        ((108, 106, 104, 102, 100), "fails"),
        ((100, 100, 100, 100, 100), "undecided"),
        ((100, 140, 120, 150, 160), "fails"),  # a trend, but one reversal for sure
    ],
    ids=str,
)
def test_smaller_delta(records: Records, tests: tuple[float, ...], verdict: str):
    for delta, test in zip(DELTAS, tests, strict=True):
        for seed, noise in enumerate((-1.0, 0.2, 0.9)):
            records.run("constraint", delta, seed, best=(test, test + noise))
    claim = records.claim("smaller-delta-is-more-accurate")
    assert claim["verdict"] == verdict
    assert len(claim["evidence"]["numbers"]["neighbours"]) == 4


@pytest.mark.parametrize(
    ("name", "column", "bad"),
    [
        ("singular-values-within-bound", "sigma_max", 1.8001),
        ("origin-stays-stable", "spectral_radius", 1.0),
    ],
)
def test_every_record_counts(records: Records, name: str, column: str, bad: float):
    records.runs("clipping", 5.0)
    assert records.claim(name)["verdict"] == "undecided"
    records.runs("constraint", 0.2)
    claim = records.claim(name)
    assert claim["verdict"] == "holds"
    assert claim["evidence"]["n"] == 3 * 6 * 40

    def spoil(steps: pd.DataFrame) -> pd.DataFrame:
        steps.loc[17, column] = bad
        return steps

    records.edit(run_path(records.root, "ptb", "constraint", 0.2, 1), "steps.csv", spoil)
    claim = records.claim(name)
    assert (claim["verdict"], claim["evidence"]["statistic"]) == ("fails", 1)


@pytest.mark.parametrize(
    ("name", "column", "bad"),
    [
        ("singular-values-within-bound", "sigma_max", 1.8001),
        ("origin-stays-stable", "spectral_radius", 1.0),
    ],
)
def test_a_record_that_is_not_finite_decides_nothing(records: Records, name: str, column: str, bad: float):
    """A run that overflowed leaves NaN or infinity; that it did is for another claim."""
    directory = records.run("constraint", 0.2, 0)

    def overflow(steps: pd.DataFrame, first: int = 0) -> pd.DataFrame:
        steps.loc[first:, column] = np.nan
        steps.loc[first::2, column] = np.inf
        return steps

    records.edit(directory, "steps.csv", overflow)
    assert records.claim(name)["verdict"] == "undecided"
    records.run("constraint", 0.2, 0)
    records.edit(directory, "steps.csv", lambda steps: overflow(steps, 234))
    claim = records.claim(name)
    evidence = claim["evidence"]
    assert (claim["verdict"], evidence["statistic"], evidence["n"]) == ("holds", 0, 234)
    assert "Another 6, of runs that overflowed, are not finite" in evidence["summary"]
    assert evidence["numbers"]["deltas"]["0.2"]["not_finite"] == 6
    assert evidence["numbers"]["deltas"]["0.2"]["largest"] <= 1.8

    def violate(steps: pd.DataFrame) -> pd.DataFrame:
        steps.loc[17, column] = bad
        return steps

    records.edit(directory, "steps.csv", violate)
    claim = records.claim(name)
    assert (claim["verdict"], claim["evidence"]["statistic"]) == ("fails", 1)


def test_rounding_is_no_violation(records: Records):
    records.runs("constraint", 0.2)
    directory = run_path(records.root, "ptb", "constraint", 0.2, 0)
    records.edit(directory, "steps.csv", lambda steps: steps.assign(sigma_max=1.8 * (1 + 9e-7)))
    assert records.claim("singular-values-within-bound")["verdict"] == "holds"


BURSTS, RISES = "bursts-where-radius-crosses-one", "gradient-rises-with-radius"


def trace(
    records: Records, bursts_above: bool, rise: float = 0.0, runs: int = 6, crosses: bool = True
) -> None:
    """Clipped runs whose radius goes above 1 and back every twenty records; bursts of one record, on one side."""
    for seed in range(runs):
        directory = records.run("clipping", 5.0, seed, trace=40)
        rng = np.random.default_rng(seed)

        def change(steps: pd.DataFrame, rng=rng, seed=seed) -> pd.DataFrame:
            above = (np.arange(len(steps)) + seed) % 40 >= 20
            radius = np.where(above & crosses, 1.1, 0.9) + 0.01 * rng.random(len(steps))
            norm = np.exp(0.1 * rng.standard_normal(len(steps)) + rise * (radius - 1))
            here = np.flatnonzero(above == bursts_above)[12::6]
            norm[here] *= 20
            norm[here[-1]] = np.inf
            return steps.assign(spectral_radius=radius, grad_norm=norm)

        records.edit(directory, "steps.csv", change)


def test_bursts_where_the_radius_crosses_one(records: Records):
    trace(records, bursts_above=True)
    claim = records.claim(BURSTS)
    numbers = claim["evidence"]["numbers"]
    assert claim["verdict"] == "holds"
    assert claim["evidence"]["n"] == len(numbers["by_run"]) == 6
    assert numbers["starts_above_below"][1] == 0
    assert all(run["bursts_above"] > 10 and run["fisher_p"] < 0.001 for run in numbers["by_run"].values())
    assert numbers["by_factor"].keys() == {"2", "3", "5"}


def test_bursts_elsewhere(records: Records):
    trace(records, bursts_above=False)
    assert records.claim(BURSTS)["verdict"] == "fails"


def test_runs_that_never_cross_decide_nothing(records: Records):
    trace(records, bursts_above=True, crosses=False)
    for name in (BURSTS, RISES):
        claim = records.claim(name)
        assert (claim["verdict"], claim["evidence"]["n"]) == ("undecided", 0)
    trace(records, bursts_above=True, runs=2)  # two runs that cross are too few
    assert records.claim(BURSTS)["verdict"] == "undecided"


def test_gradient_rises_with_the_radius(records: Records):
    trace(records, bursts_above=True, rise=5)
    claim = records.claim(RISES)
    assert claim["verdict"] == "holds"
    assert min(claim["evidence"]["numbers"]["spearman"].values()) > 0.5
    trace(records, bursts_above=False, rise=-5)
    assert records.claim(RISES)["verdict"] == "fails"


def test_a_burst_is_against_the_level_before_it_not_against_the_drift(records: Records):
    """A gradient that falls tenfold while training settles, or that doubles slowly, has no bursts."""
    for seed, drift in enumerate((np.geomspace(100, 10, 240), np.geomspace(1, 10, 240), np.ones(240))):
        directory = records.run("clipping", 5.0, seed)
        radius = np.where(np.arange(240) > 200, 1.1, 0.9)
        records.edit(
            directory, "steps.csv", lambda s, d=drift, r=radius: s.assign(grad_norm=d, spectral_radius=r)
        )
    numbers = records.claim(BURSTS)["evidence"]["numbers"]
    assert all(run["bursts_above"] == run["bursts_below"] == 0 for run in numbers["by_run"].values())
    assert records.claim(BURSTS)["verdict"] == "undecided"


@pytest.mark.parametrize(("told_by", "verdict"), [("growth", "holds"), ("spectral_radius", "fails")])
def test_which_of_growth_and_radius_tells_bursts_better(records: Records, told_by: str, verdict: str):
    """Constrained runs count, too; a run without a burst and old records without the column do not."""
    other = {"growth": "spectral_radius", "spectral_radius": "growth"}[told_by]
    for seed in range(4):
        for method, value in (("constraint", 0.2), ("clipping", 5.0)):
            directory = records.run(method, value, seed, trace=40)
            rng = np.random.default_rng(seed)

            def change(steps: pd.DataFrame, rng=rng) -> pd.DataFrame:
                norm, values = (
                    np.exp(0.1 * rng.standard_normal(len(steps))),
                    0.5 + 0.1 * rng.random(len(steps)),
                )
                here = np.arange(20, len(steps), 15)
                norm[here] *= 20
                values[here] += 0.3
                noise = 0.5 + 0.1 * rng.random(len(steps))
                return steps.assign(grad_norm=norm, **{told_by: values, other: noise})

            records.edit(directory, "steps.csv", change)
    records.run("none", None, 0, trace=40)
    calm = run_path(records.root, "ptb", "none", None, 0)
    records.edit(calm, "steps.csv", lambda steps: steps.assign(grad_norm=1.0))
    claim = records.claim("growth-tells-bursts-better")
    numbers = claim["evidence"]["numbers"]
    assert claim["verdict"] == verdict
    assert claim["evidence"]["n"] == 8
    assert all(
        run["growth" if told_by == "growth" else "radius"] > 0.95 for run in numbers["by_run"].values()
    )
    assert [numbers["by_method"][method]["runs"] for method in ("constraint", "clipping", "none")] == [
        4,
        4,
        0,
    ]
    assert records.claim("bursts-where-growth-is-large")["verdict"] in ("holds", "undecided")
    for directory in records.root.glob("runs/ptb/*/seed-*"):
        records.edit(directory, "steps.csv", lambda steps: steps.drop(columns="growth"))
    assert records.claim("growth-tells-bursts-better")["verdict"] == "undecided"


def timed(records: Records, constraint: float, spread: float = 0.01) -> None:
    for method, values, base in (
        ("constraint", DELTAS, constraint),
        ("clipping", (5.0, 10.0, 15.0, 20.0), 10.0),
    ):
        for i, value in enumerate(values):
            for seed in SEEDS:
                directory = records.run(method, value, seed)
                seconds = base * (1 + spread * i)
                records.edit(directory, "history.csv", lambda h, s=seconds: h.assign(seconds=s))


@pytest.mark.parametrize(
    ("constraint", "spread", "verdict"),
    [(10.0, 0.005, "holds"), (13.0, 0.01, "fails"), (10.6, 0.03, "undecided"), (8.0, 0.1, "undecided")],
)
def test_cost(records: Records, constraint: float, spread: float, verdict: str):
    timed(records, constraint, spread)
    claim = records.claim("constraint-costs-no-more")
    assert claim["verdict"] == verdict
    assert claim["evidence"]["n"] == 9


@pytest.mark.parametrize(
    ("change", "reason"), [({"host": "other"}, "different places"), ({"replicas": 9}, "share their time")]
)
def test_timings_of_different_conditions_decide_nothing(records: Records, change: dict, reason: str):
    timed(records, 9.0)
    reseal(run_path(records.root, "ptb", "clipping", 5.0, 0), **change)
    claim = records.claim("constraint-costs-no-more")
    assert claim["verdict"] == "undecided"
    assert reason in claim["evidence"]["summary"]


def test_claims_of_a_campaign_as_json_markdown_and_html(tmp_path: Path):
    root = tmp_path / "quick"
    make_campaign(root, SETTINGS, SEEDS)
    paths = write_claims(Campaign.load(root, SETTINGS, SEEDS, "quick"))
    assert [path.name for path in paths] == ["claims.json", "claims.md", "claims.html"]
    claims = json.loads(paths[0].read_text())
    assert len(claims) == 2 * len(CHECKS) - 1
    for claim in claims:
        where = {"corpus": claim["corpus"], "scale": "quick", "layers": 1 if claim["corpus"] == "ptb" else 2}
        assert where.items() <= claim.items()
        assert claim.keys() - where == {
            "id",
            "statement",
            "provenance",
            "verdict",
            "verdict_holm",
            "evidence",
        }
        assert claim["verdict"] in ("holds", "fails", "undecided")
        assert claim["provenance"] in ("S", "U", "O")
        assert all((root / run / "run.json").exists() for run in claim["evidence"]["runs"])
        for text in (unescape(path.read_text()) for path in paths[1:]):
            assert claim["statement"] + {"S": "", "U": "†", "O": "°"}[claim["provenance"]] in text
    assert "chorales (standing in for nottingham)" in paths[1].read_text()
    before = [path.read_bytes() for path in paths]
    assert [
        path.read_bytes() for path in write_claims(Campaign.load(root, SETTINGS, SEEDS, "quick"))
    ] == before


def test_a_missing_run_is_named(tmp_path: Path):
    make_run(tmp_path, "ptb", "constraint", 0.2, 0)
    with pytest.raises(InputError, match="seed-1"):
        write_claims(Campaign.load(tmp_path, {"ptb": [Setting("constraint", 0.2)]}, (0, 1), "quick"))
    assert not list(tmp_path.glob("claims*"))


def test_runs_that_left_no_record_are_undecided_not_errors(records: Records):
    for seed in SEEDS:
        records.run("none", None, seed, diverged_in=1, trace=0)
        records.run("constraint", 0.2, seed, diverged_in=1, trace=0)
    for name in (
        "singular-values-within-bound",
        BURSTS,
        "constraint-beats-clipping",
        "constraint-costs-no-more",
    ):
        assert records.claim(name)["verdict"] == "undecided"


def test_a_check_reads_only_what_it_is_given(records: Records):
    """Checks get runs by setting; no run, no claim that holds."""
    verdicts = {claim.verdict for claim in check_claims({}, "ptb")}
    assert verdicts == {"undecided"}


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(-3, 3), min_size=3, max_size=7).filter(any))
def test_signed_ranks_are_tested_as_scipy_does(values: list[int]):
    """Ties and zeros included."""
    for found, side in zip(signed_rank(values), ("greater", "less"), strict=True):
        wanted = wilcoxon(values, alternative=side)
        assert (found.statistic, found.pvalue) == (wanted.statistic, wanted.pvalue)
