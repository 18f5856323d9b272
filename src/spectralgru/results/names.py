"""Names of tables, figures and claims, without the libraries that make them: the workflow reads them at every start."""

from collections.abc import Sequence

WORDS = ("ptb",)  # every other corpus is music

FIGURE_NAMES = ("trajectory", "radius_gradient", "learning_curves", "gradient_norms", "singular_values")
CLAIMS = ("claims.json", "claims.md", "claims.html")


def table_names(corpora: Sequence[str]) -> dict[str, str]:
    """File stem of each corpus' table: table1 words, table2 music; a second corpus of a kind adds its name.

    The paper's own corpora come before others of their kind, whatever the order.
    """
    names: dict[str, str] = {}
    for corpus in sorted(corpora, key=lambda c: c not in ("ptb", "nottingham")):  # stable
        number = "table1" if corpus in WORDS else "table2"
        names[corpus] = f"{number}_{corpus}" if number in names.values() else number
    return names
