"""`results/<scale>/article.pdf`: a replication report, set by Typst from the records. The template holds no numbers."""

import hashlib
import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, cast

from spectralgru.errors import RunError
from spectralgru.files import write_together
from spectralgru.pipeline.article.contents import Contents, read_contents, without_drawings
from spectralgru.pipeline.provenance.record import report_made_from
from spectralgru.pipeline.results.names import ARTICLE
from spectralgru.seal import sealed_json


def write_article(root: Path) -> list[Path]:
    """Write `article.pdf`, then `article.json`: what it says, and what it was made from. Returns the paths.

    The same records give the same bytes. Raises InputError naming what is missing below `root` (`results/<scale>`).
    """
    root = Path(root)
    pdf, said = (root / name for name in ARTICLE)
    contents = read_contents(root)
    page = typeset(contents)
    seals = {"made_from": report_made_from(root), "files": {pdf.name: hashlib.sha256(page).hexdigest()}}
    write_together({pdf: page, said: sealed_json(seals | without_drawings(contents)).encode()})
    return [pdf, said]


def typeset(contents: Contents, form: Literal["pdf", "html"] = "pdf") -> bytes:
    """The article as bytes."""
    import typst

    with as_file(files(__name__)) as folder:
        try:
            # Only its own fonts, so that it looks the same everywhere.
            compiler = typst.Compiler(
                folder / "article.typ",
                root=folder,
                ignore_system_fonts=True,
                sys_inputs={"contents": json.dumps(contents)},
            )
            return cast(bytes, compiler.compile(format=form))
        except typst.TypstError as error:
            raise RunError(f"article: Typst refuses the template ({error.message})") from error
