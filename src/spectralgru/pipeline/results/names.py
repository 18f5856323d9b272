"""Names of tables, figures, claims and settings, without the libraries that make or draw them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spectralgru.pipeline.corpora import CORPORA
from spectralgru.setting import Setting, number

WORDS = tuple(corpus for corpus, kind in CORPORA.items() if kind == "words")

# What each figure shows; workflow/report/<name>.rst says the same to Snakemake.
FIGURE_CAPTIONS = {
    "trajectory": (
        "Gradient norm (largest of each interval of steps) above the spectral radius of the Jacobian at the "
        "origin during training, of one run per method; at the dashed line the origin loses its stability."
    ),
    "radius_gradient": (
        "Gradient norm against spectral radius, every recorded interval of all seeds; right of the dashed "
        "line the origin is unstable."
    ),
    "growth_gradient": (
        "Gradient norm against growth along the data (largest finite-time Lyapunov exponent over the steps of a "
        "batch), every recorded interval of all seeds; right of the dashed line a gradient grows on its way back."
    ),
    "learning_curves": (
        "Validation by epoch and setting: mean over the seeds that reached the epoch, band from the lowest to "
        "the highest. Dashed, where drawn: what the corpus' frequencies alone predict; a run above it does worse "
        "than that."
    ),
    "gradient_norms": "Gradient norm before clipping (largest of each interval of steps), all seeds, by setting.",
    "singular_values": (
        "Singular values of the recurrent candidate weights before and after training, first seed, with the "
        "bounds of the constraint."
    ),
}
FIGURE_NAMES = tuple(FIGURE_CAPTIONS)
METHOD_TITLES = {"constraint": "constraint", "clipping": "gradient clipping", "none": "unconstrained"}
REPORT = "report.html"
ARTICLE = ("article.pdf", "article.json")  # the second: its contents and what it was made from
KEPT = "reproduction"  # beside `results/`: campaigns kept from before
# Files in tables/ about all corpora together.
NUMBERS = ("metrics.json", "runs.csv", "curves.csv")
CLAIMS = ("claims.json", "claims.md", "claims.html")


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 seed`, `3 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def words_of(data: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The corpora that have words, from their records (older ones do not say)."""
    return [corpus for corpus, about in data.items() if about.get("kind", CORPORA.get(corpus)) == "words"]


def table_names(corpora: Sequence[str], words: Collection[str] = WORDS) -> dict[str, str]:
    """File stem of each corpus' table: table1 for words, table2 for music; a second corpus of a kind adds its name.

    `words`: the corpora that have words; all others have notes. The paper's own corpora always come first in their
    kind.
    """
    names: dict[str, str] = {}
    for corpus in sorted(corpora, key=lambda c: c not in ("ptb", "nottingham")):  # stable
        number = "table1" if corpus in words else "table2"
        names[corpus] = f"{number}_{corpus}" if number in names.values() else number
    return names


def title(setting: Setting) -> str:
    """A setting as legends name it: `δ = 0.2`, `clip 15`, `unconstrained`."""
    if setting.value is None:
        return "unconstrained"
    return ("δ = " if setting.method == "constraint" else "clip ") + number(setting.value)
