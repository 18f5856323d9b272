"""All claims to show: of this campaign, of its other readings, and of kept campaigns."""

import json
from pathlib import Path
from typing import Any

from spectralgru.pipeline.report.parts import read_claims
from spectralgru.pipeline.results.names import CLAIMS, KEPT
from spectralgru.pipeline.summary import SUMMARY


def every_claim(root: Path) -> list[dict[str, Any]]:
    """The records of claims below `root` (`results/<scale>`), and those of kept campaigns with their folder's name.

    Raises InputError naming a file that cannot be read.
    """
    claims = read_claims(root)
    for path in sorted(root.glob(f"experiments/*/{SUMMARY}")):
        claims += json.loads(path.read_text(encoding="utf-8")).get("claims", [])
    for path in sorted((root.parent.parent / KEPT).glob(f"*/{CLAIMS[0]}")):
        claims += [claim | {"record": path.parent.name} for claim in read_claims(path.parent)]
    return claims
