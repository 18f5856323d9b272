"""The article: no number of its own, no sentence that the records do not support, the same bytes every time."""

import ast
import html
import json
import re
import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from results_records import REPOSITORY, SETTINGS, make_experiment, make_results
from spectralgru.errors import InputError
from spectralgru.files import write_text
from spectralgru.pipeline import article
from spectralgru.pipeline.article import typeset, write_article
from spectralgru.pipeline.article.contents import read_contents, without_drawings
from spectralgru.pipeline.results.claims.render import RULES
from spectralgru.pipeline.results.names import ARTICLE, KEPT
from spectralgru.pipeline.strict_yaml import read_yaml
from spectralgru.resources import resource

FOLDER = Path(article.__file__).parent
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
COUNTED = {"runs", "seeds", "lost", "broken", "columns", "span"}  # of runs, and of cells


@pytest.fixture(scope="module")
def made(tmp_path_factory, results):
    folder = tmp_path_factory.mktemp("article")
    root = shutil.copytree(results.parents[1], folder, dirs_exist_ok=True) / "results" / "quick"
    make_experiment(root / "experiments" / "learning_rate")
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of its own."""
    return shutil.copytree(made, tmp_path / "results" / "quick")


def text(root: Path) -> str:
    """What a reader reads."""
    page = typeset(read_contents(root), "html").decode()
    body = re.sub(r"<style.*?</style>|<svg.*?</svg>|<img[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def change(path: Path, edit) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def numbers_of(content, key: str = "") -> set[str]:
    """Every number in the contents, as text, but for counts."""
    if isinstance(content, dict):
        return set().union(*(numbers_of(value, name) for name, value in content.items()), set())
    if isinstance(content, list):
        return set().union(*(numbers_of(value, key) for value in content), set())
    return set() if key in COUNTED or isinstance(content, bool) else set(NUMBER.findall(str(content)))


def values_in(*texts: str) -> set[float]:
    return {float(found.replace(",", "")) for one in texts for found in NUMBER.findall(one)}


def bears_out(values: set[float], shown: str) -> bool:
    """Whether one of the values is the number shown, to the digits shown, or as per cent."""
    number = Decimal(shown.replace(",", ""))
    digits = -int(number.as_tuple().exponent)
    return any(round(value * factor, digits) == float(number) for value in values for factor in (1, 100))


def test_the_template_holds_no_number_but_those_of_the_equations():
    source = (FOLDER / "article.typ").read_text()
    equations = re.findall(r"\$.*?\$", source, re.DOTALL)
    assert set(NUMBER.findall(" ".join(equations))) == {"0", "1", "2", "4"}
    words = re.sub(r"\$.*?\$", " ", source, flags=re.DOTALL)
    words = words.replace("music21", "").replace('music21"', "")  # a name
    assert not re.findall(r".*\d.*", words)
    layout = (FOLDER / "layout.typ").read_text()
    lengths = re.sub(
        r'"#[0-9a-f]{6}"|\d*\.?\d+(?:pt|cm|em|fr|%)|luma\(\d+\)|"\(?[1A](?:\.1)?\)?"', "", layout
    )
    assert not re.findall(r"\[[^\[\]]*\d[^\[\]]*\]", lengths)


def test_the_code_says_no_number():
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text())
        said = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        words = [word for word in said if isinstance(word, str) and word != "utf-8"]
        assert not [word for word in words if re.search(r"\d", word)], path


def test_every_number_is_one_of_a_record(made):
    records = [*made.rglob("*.json"), *made.glob("tables/*.csv")]
    records = [path.read_text() for path in records if path.name not in ARTICLE]
    values = values_in(*records, resource("paper.yaml").read_text(), RULES)
    found = numbers_of(without_drawings(read_contents(made)))
    assert len(found) > 100
    assert [number for number in sorted(found) if not bears_out(values, number)] == []


def test_numbers_follow_the_records(root):
    def double(record):
        for run in record["runs"].values():
            run["best"] = {name: 2 * value for name, value in run["best"].items()}

    def cells():
        rows = read_contents(root)["corpora"][0]["table"]["rows"]
        return {(r["cells"][0]["text"], r["cells"][1]["text"]): r["cells"][2]["text"] for r in rows[2:]}

    before = cells()
    change(root / "provenance.json", double)
    change(root / "claims.json", lambda claims: claims[0]["evidence"].update(summary="987654 of it."))
    changed = {row for row, cell in cells().items() if cell != before[row]}
    assert changed == {("validation perplexity", "ours"), ("test perplexity", "ours")}
    assert "987654 of it." in text(root)


@pytest.mark.parametrize("verdict", ["holds", "fails", "undecided"])
def test_sentences_follow_the_verdicts(root, verdict):
    def decide(claims):
        for claim in claims:
            claim["verdict"] = "holds" if claim["id"] == "origin-stays-stable" else verdict

    change(root / "claims.json", decide)
    said = text(root)
    assert ("the best clipping threshold models the data better" in said) == (verdict == "fails")
    assert ("models the data better than the best clipping threshold" in said) == (verdict == "holds")
    assert ("best clipping threshold cannot be told apart" in said) == (verdict == "undecided")
    assert ("stability is not sufficient" in said) == (verdict == "fails")
    assert ("is neither confirmed nor refuted" in said) == (verdict == "undecided")


def test_what_is_not_there_is_not_spoken_of(tmp_path):
    root = make_results(tmp_path, {"ptb": SETTINGS["ptb"][:3]}, (0,))
    said = text(root)
    for absent in ("chorales", "Unconstrained", "Longer trainings", "Questions beyond", "lower rate"):
        assert absent not in said
    assert "Clipping" in said
    (tmp_path / KEPT).symlink_to(REPOSITORY / KEPT)
    said = text(root)
    assert "Longer trainings" in said
    assert "What does the constraint cost?" in said
    for answer in (REPOSITORY / KEPT).glob("*/answer.json"):
        assert json.loads(answer.read_text())["title"] in said


def test_it_says_what_the_report_says(made):
    said = text(made).replace(" ", "")
    assert "learningrate" in said
    for claim in json.loads((made / "claims.json").read_text()):
        assert claim["evidence"]["summary"].split("sigma_1")[0].replace(" ", "") in said
    for fact in ("Penn Treebank", "in place of Nottingham", "not checked against the PDF", "torch 2.13.0"):
        assert fact.replace(" ", "") in said


def test_same_records_same_bytes_without_a_date_in_fonts_of_its_own(root):
    paths = write_article(root)
    before = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == list(ARTICLE)
    assert before[0].startswith(b"%PDF-")
    assert not re.search(rb"(?:Creation|Mod(?:ify)?|Metadata)Date", before[0])
    assert [path.read_bytes() for path in write_article(root)] == before
    fonts = set(re.findall(rb"/FontName/[A-Z]{6}\+([A-Za-z]+)", before[0]))
    assert fonts == {b"LibertinusSerif", b"NewCMMath", b"DejaVuSansMono"}


def test_the_settings_are_those_of_the_page_on_the_method():
    page = (REPOSITORY / "docs/method.md").read_text().replace(" [S]", "")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    known = {row[0].replace(",", ""): row[1:] for row in rows if len(row) == 3}
    for name, of_corpus in read_yaml(resource("paper.yaml"))["settings"].items():
        told = known[name.replace(",", "")]
        for corpus, cell in zip(("ptb", "nottingham"), told, strict=True):
            assert cell.startswith(of_corpus[corpus].replace(" [S]", "")), name


@pytest.mark.parametrize("content", ["[]", '{"title": "Cost"}', "{"])
def test_a_kept_answer_that_is_none_is_named(root, content):
    path = root.parents[1] / KEPT / "2026-01-02-cost" / "summary.json"
    write_text(path, content)
    with pytest.raises(InputError, match=r"2026-01-02-cost/summary\.json: not a summary .* restore"):
        read_contents(root)


@pytest.mark.parametrize("missing", ["claims.json", "provenance.json", "figures/ptb-trajectory.svg"])
def test_what_is_missing_is_named_with_the_remedy(root, missing):
    (root / missing).unlink()
    with pytest.raises(InputError, match=rf"{missing}.*snakemake"):
        write_article(root)
    assert not (root / ARTICLE[0]).exists()
