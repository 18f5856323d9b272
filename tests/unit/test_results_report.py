import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from results_records import REPOSITORY, SETTINGS, make_experiment, make_results
from spectralgru.errors import InputError
from spectralgru.pipeline.provenance.record import other_selection
from spectralgru.pipeline.report import headline, write_report
from spectralgru.pipeline.results.names import FIGURE_CAPTIONS

PTB = {"ptb": SETTINGS["ptb"]}


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.tags if attrs.get(attribute)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("report"), PTB)


@pytest.fixture
def root(made, tmp_path: Path):
    """A copy of its own."""
    return shutil.copytree(made, tmp_path / "quick")


def test_it_needs_nothing_but_itself(made):
    page = Page(made / "report.html")
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    assert all(source.startswith("data:image/svg+xml") for source in page.all("src"))
    assert "url(" not in (made / "report.html").read_text().split("</style>")[0]


def saved(page: Page) -> dict[str, bytes]:
    """The files that links of the page save, by name."""
    links = [attrs for tag, attrs in page.tags if tag == "a" and "download" in attrs]
    return {attrs["download"]: base64.b64decode(attrs["href"].partition("base64,")[2]) for attrs in links}


def test_every_link_works_in_a_page_that_travels_alone(root):
    make_experiment(root / "experiments" / "learning_rate")
    page = Page(write_report(root))
    links, ids = page.all("href"), page.all("id")
    assert len(ids) == len(set(ids))
    assert {"#answer", "#learning_rate"} <= set(links)
    assert all(link[1:] in ids if link.startswith("#") else link.startswith("data:") for link in links)
    files = saved(page)
    assert set(files) == {"table1.csv", "table1.md", "table1.tex", "rates.csv"}
    assert files["table1.tex"] == (root / "tables/table1.tex").read_bytes()
    (root / "tables" / "table1.tex").unlink()
    assert "table1.tex" not in saved(Page(write_report(root)))


def test_it_shows_every_table_figure_and_claim(made):
    page, source = Page(made / "report.html"), (made / "report.html").read_text()
    table = re.search(r"<table.*?</table>", (made / "tables/table1.html").read_text(), re.DOTALL)[0]
    assert table in source
    assert len([tag for tag, _ in page.tags if tag == "img"]) == len(FIGURE_CAPTIONS)
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    for claim in json.loads((made / "claims.json").read_text()):
        mark = {"S": "", "U": "†", "O": "°"}[claim["provenance"]]
        text = f"{claim['verdict']} {claim['statement']}{mark} {claim['evidence']['summary']}"
        assert " ".join(text.split()) in page.text
    assert "paper†" in page.text
    assert "not checked against the PDF" in page.text
    for fact in ("0123456789abcdef", "ab" * 32, "torch 2.13.0", "spectralgru provenance table1"):
        assert fact in page.text


def test_the_answer_is_counted_from_the_claims(root):
    claims = json.loads((root / "claims.json").read_text())
    for i, claim in enumerate(claims):
        claim["verdict"] = "holds" if i < 3 else "fails"
        claim["verdict_holm"] = "holds" if i < 2 else "undecided"
    expected = (
        f"At quick scale, on ptb, 3 of {len(claims)} claims hold, {len(claims) - 3} fail, 0 are undecided; "
        f"2, 0 and {len(claims) - 2} after Holm's correction."
    )
    assert headline(claims, "quick") == expected
    (root / "claims.json").write_text(json.dumps(claims))
    write_report(root)
    assert expected in Page(root / "report.html").text


def test_the_first_screen_answers_from_the_claims(root):
    claims = json.loads((root / "claims.json").read_text())
    evidence = {claim["id"]: claim["evidence"]["summary"] for claim in claims}
    for verdict, word in (("holds", "✓ Yes"), ("fails", "✗ No"), ("undecided", "? Not decided")):
        for claim in claims:
            claim["verdict"] = verdict
        (root / "claims.json").write_text(json.dumps(claims))
        text = Page(write_report(root)).text
        for name in ("constraint-never-diverges", "constraint-beats-clipping"):
            assert f"{word} ptb, quick scale, 1 layer: {evidence[name]}" in text
    assert "And with several layers? No run here tells." in text
    (claim,) = (claim for claim in claims if claim["id"] == "constraint-never-diverges")
    deep = claim | {"layers": 2, "verdict": "fails", "evidence": {"summary": "6 of 15 diverged."}}
    make_experiment(root / "experiments" / "readings", claims=[deep])
    text = Page(write_report(root)).text
    assert "And with several layers? ✗ No ptb, quick scale, 2 layers: 6 of 15 diverged." in text


def test_the_first_screen_has_the_best_of_each_method(made):
    text = " ".join(re.sub("<[^>]+>", " ", (made / "report.html").read_text()).split())
    table = pd.read_csv(made / "tables/table1.csv")
    valid, test = (table[table["quantity"] == f"{split} perplexity"] for split in ("validation", "test"))
    cases = (("constraint", "δ =", "6 of 6", "3 of 3"), ("clipping", "clip", "4 of 6", "1 of 3"))
    for method, word, finished, runs in cases:
        ours = valid[(valid["source"] == "ours") & valid["setting"].str.startswith(method)]
        best = ours.loc[ours["mean"].idxmin(), "setting"]
        (row,) = test[(test["source"] == "ours") & (test["setting"] == best)].to_dict("records")
        spread = "" if method == "clipping" else f" ± {row['sd']:.2g}"  # of one run there is none
        assert f"{finished} {word} {best.partition('-')[2]} ({runs}) {row['mean']:.4g}{spread}" in text
    assert "unconstrained 0 of 3 n/a n/a" in text


def test_results_of_other_corpora_are_told_apart(made):
    assert other_selection(made, ["ptb"]) == ""
    assert other_selection(made / "none", ["ptb"]) == ""
    said = other_selection(made, ["ptb", "chorales"])
    assert f"{made / 'report.html'} and what it is made of show ptb and will show ptb, chorales" in said
    assert "results=FOLDER" in said


def test_experiments_and_samples_are_shown_when_they_are_there(root):
    before = Page(root / "report.html")
    assert "lower rate" not in before.text
    make_experiment(root / "experiments" / "learning_rate")
    links = [{"text": "constrained, MIDI", "href": "one.mid"}, {"text": "lost", "href": "two.mid"}]
    texts = [{"title": "clip 5", "prompt": "he said", "continuation": "<unk>\nthe"}]
    make_experiment(root / "samples", title="Samples", links=links, texts=texts)
    (root / "samples" / "one.mid").write_bytes(b"MThd")
    (root / "experiments" / "unfinished").mkdir()
    page = Page(write_report(root))
    assert "The constraint works at 5 of 7 <rates> & more." in page.text
    assert {"learning_rate", "samples"} <= set(page.all("id"))
    assert saved(page)["one.mid"] == b"MThd"
    assert "two.mid" not in saved(page)
    assert "clip 5; what was given is bold he said <unk> the" in page.text
    count = [sum(tag == "img" for tag, _ in p.tags) for p in (before, page)]
    assert count[1] == count[0] + 2


def test_campaigns_kept_beside_the_results_are_shown_with_their_own_table(made, tmp_path: Path):
    root = shutil.copytree(made, tmp_path / "results" / "quick")
    record = tmp_path / "reproduction" / "2026-01-02-long"
    record.mkdir(parents=True)
    for name in ("provenance.json", "claims.md", "figures/ptb-learning_curves.svg"):
        shutil.copy(root / name, record)
    write_report(root)
    before = Page(root / "report.html")
    assert "2026-01-02-long" not in before.all("id")  # it has no answer
    answer = {"title": "A long training", "answer": ["Clipping at 5 is <worse> than ever."]}
    (record / "answer.json").write_text(json.dumps(answer))
    page = Page(write_report(root))
    assert "2026-01-02-long" in page.all("id")
    assert "Clipping at 5 is <worse> than ever." in page.text
    assert "Records and files: reproduction/2026-01-02-long/" in page.text
    shown = re.search(r"<table.*?</table>", (root / "tables/table1.html").read_text(), re.DOTALL)[0]
    source = (root / "report.html").read_text()
    assert source.count(shown) == 2
    (record / "answer.json").write_text('{"title": "A long training"}')
    with pytest.raises(InputError, match=r"2026-01-02-long/answer\.json"):
        write_report(root)


@pytest.mark.parametrize("missing", ["claims.json", "provenance.json", "figures/ptb-trajectory.svg"])
def test_what_is_missing_is_named_with_the_remedy(root, missing: str):
    (root / missing).unlink()
    before = (root / "report.html").read_bytes()
    with pytest.raises(InputError, match=rf"{missing}.*snakemake"):
        write_report(root)
    assert (root / "report.html").read_bytes() == before


def test_a_broken_summary_is_named(root):
    make_experiment(root / "experiments" / "cost")
    (root / "experiments/cost/summary.json").write_text('{"title": "Cost"}')
    with pytest.raises(InputError, match=r"cost/summary\.json"):
        write_report(root)


def test_same_records_same_page(made):
    before = (made / "report.html").read_bytes()
    assert write_report(made).read_bytes() == before


def test_captions_are_those_of_snakemakes_report():
    for name, caption in FIGURE_CAPTIONS.items():
        assert (REPOSITORY / f"workflow/report/{name}.rst").read_text().strip() == caption
