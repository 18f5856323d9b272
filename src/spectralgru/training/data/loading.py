"""What training needs to know about a corpus, the same for words and for notes."""

from spectralgru.errors import InputError
from spectralgru.training.data.baselines import independent_note_loss, unigram_loss
from spectralgru.training.data.dataset import Corpus, Split, Words
from spectralgru.training.data.subset import subset_tunes, subset_words
from spectralgru.training.settings import DataSettings


def subset(corpus: Corpus, data: DataSettings) -> Corpus:
    """The part of the corpus that the settings choose."""
    if isinstance(corpus, Words):
        return subset_words(corpus, data.train, data.valid, data.test, data.vocabulary)
    if data.vocabulary is not None:
        raise InputError(
            f"data.vocabulary is {data.vocabulary}: {corpus.name} has notes, not words; remove the key"
        )
    return subset_tunes(corpus, data.train, data.valid, data.test)


def width(corpus: Corpus) -> int:
    """Number of inputs and outputs of a model: words in the vocabulary, or notes."""
    return len(corpus.vocabulary) if isinstance(corpus, Words) else corpus.train.shape[1]


def baseline_loss(corpus: Corpus, split: Split) -> float:
    """Loss of a predictor without memory: unigrams, or independent notes. A run that does no better has diverged."""
    return unigram_loss(corpus, split) if isinstance(corpus, Words) else independent_note_loss(corpus, split)


def why_nothing_learnt(valid_loss: float, baseline: float) -> str | None:
    """Why a run that ends with this validation loss has diverged; None if it beats `baseline_loss`."""
    if valid_loss >= baseline:
        return f"final validation loss no better than {baseline:.4f}, the loss of the corpus' frequencies"
    return None
