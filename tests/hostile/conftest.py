"""Whatever is thrown at it: no traceback, no hang, nothing outside the given folders, nothing finished changed.

Seeded, so that a failure comes again. The helpers are in `damage.py`.
"""

import json
import random
import shutil
import zlib
from pathlib import Path

import pytest
from damage import spectralgru

from campaign import Campaign
from spectralgru.files import write_json
from spectralgru.pipeline.corpora.recipe import RECIPE


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of the test's own, the same every time."""
    return random.Random(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign of four runs with all that is made of them."""
    campaign = Campaign(tmp_path_factory.mktemp("finished"), [0.2], [5.0], [0])
    campaign.use_tiny_corpus()
    for record in (campaign.folder / "data/prepared").glob("*.json"):
        about = {
            "recipe": RECIPE,
            "raw": {"a": {"sha256": "ab" * 32, "source": "b"}},
            "licence": "free",
            "counts": {},
        }
        write_json(record, json.loads(record.read_text()) | about)
    quick = campaign.values["quick"]
    quick["run"] = ["ptb", "chorales"]
    chorales = quick["settings"]["chorales"]
    chorales["methods"] = dict(campaign.ptb["methods"])
    chorales["data"] = {}
    chorales["model"] |= {"hidden_size": 8, "num_layers": 1, "input_scale": 1.0}
    chorales["training"] |= {"epochs": 1, "batch_size": 4, "learning_rate": 0.1, "trace_every": 5}
    campaign.ptb["training"]["epochs"] = 1
    campaign.write_params()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(campaign.folder)
        for corpus in ("ptb", "chorales"):
            for method, value in (("constraint", "0.2"), ("clipping", "5")):
                train = ["train", "--corpus", corpus, "--method", method, "--value", value, "--threads", "1"]
                assert spectralgru(*train) == (0, "")
        for command in ("tables", "figures", "claims", "provenance", "report", "article"):
            assert spectralgru(command) == (0, ""), command
    return campaign.folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished campaign, and the working directory; no source of corpora answers."""
    for name in ("SPECTRALGRU_MIRROR", "SPECTRALGRU_DEVICE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    copy = tmp_path / "campaign"
    shutil.copytree(finished, copy)
    monkeypatch.chdir(copy)
    return copy
