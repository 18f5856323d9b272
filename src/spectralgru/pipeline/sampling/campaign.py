"""`results/<scale>/samples/`: how the best constrained and the best clipped run continue the same beginning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
from matplotlib import style

from spectralgru.files import write_text, write_together
from spectralgru.pipeline.results.load import Campaign, RunFiles, Runs
from spectralgru.pipeline.results.names import title
from spectralgru.pipeline.results.outcome import succeeded
from spectralgru.pipeline.results.style import RC, save
from spectralgru.pipeline.sampling.dates import SAMPLED, made_of
from spectralgru.pipeline.sampling.music import sounding
from spectralgru.pipeline.sampling.roll_figure import draw
from spectralgru.pipeline.sampling.sample import NOTE_STEPS, TOKENS, Tune, original, sample_text, sample_tune
from spectralgru.pipeline.sampling.text import decode
from spectralgru.pipeline.sampling.trained import Trained, open_run
from spectralgru.pipeline.summary import SUMMARY, write_summary
from spectralgru.records import Run
from spectralgru.setting import Setting
from spectralgru.training.data.dataset import EOS, Notes, Words

# The same for every method, chosen before hearing or reading any result.
SEED, TEMPERATURE = 0, 1.0
SENTENCES, GIVEN = 3, 4  # number of sentences of the test split, and of words given from each
UNITS = {"perplexity": "perplexity", "nll": "nats per step"}


@dataclass
class Samples:
    """The content of `summary.json`, with names of files in its folder."""

    folder: Path
    answer: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)  # SVG files; a pdf lies beside each
    links: list[dict[str, str]] = field(default_factory=list)
    sounds: list[dict[str, str]] = field(default_factory=list)
    texts: list[dict[str, str]] = field(default_factory=list)  # title, prompt, continuation
    files: list[str] = field(default_factory=list)


def write_samples(campaign: Campaign, data: Path) -> list[Path]:
    """Sample for every corpus and write it below `samples`, `summary.json` last; return the paths.

    Runs that diverged are not sampled from.
    """
    root = campaign.root
    samples = Samples(root / "samples")
    keys: dict[str, str] = {}
    for corpus, every in campaign.corpora.items():
        runs = {setting: items for setting, items in every.items() if setting.method in SAMPLED}
        keys |= {
            item.directory.relative_to(root).as_posix(): item.run.key
            for items in runs.values()
            for item in items
        }
        found = {method: best(runs, method) for method in SAMPLED}
        chosen = {method: open_run(item.directory, data) for method, item in found.items() if item}
        if chosen:
            write = _write_words if isinstance(next(iter(chosen.values())).corpus, Words) else _write_music
            write(samples, corpus, chosen)
        missing = [method for method in SAMPLED if method not in chosen]
        samples.answer += [
            f"{corpus}: no run of {method} finished, so none is sampled." for method in missing
        ]
    samples.answer.append("A sample shows what a model has learnt; to compare methods, see the tables.")
    said = {name: getattr(samples, name) for name in ("answer", "figures", "links", "sounds", "texts")}
    said |= {"title": "Continuations", "tables": []}
    write_summary(samples.folder, said, samples.files, made_of(keys))
    return [samples.folder / name for name in (*samples.files, SUMMARY)]


def best(runs: Runs, method: str) -> RunFiles | None:
    """The run with the best validation metric in the setting with the best mean of it; None if no run finished."""
    finished = [
        [item for item in items if succeeded(item.run)]
        for setting, items in runs.items()
        if setting.method == method
    ]
    if not any(finished):
        return None
    of_best = min(filter(None, finished), key=lambda items: fmean(item.run.best["valid"] for item in items))
    return min(of_best, key=lambda item: item.run.best["valid"])


def _write_music(samples: Samples, corpus: str, chosen: Mapping[str, Trained]) -> None:
    anyone = next(iter(chosen.values()))
    assert isinstance(anyone.corpus, Notes)
    known = anyone.corpus.lowest + np.flatnonzero(anyone.corpus.train.any(axis=0))
    beginnings = (original(anyone, "test", i, 0).roll for i in range(len(anyone.corpus.test_lengths)))
    number = next((i for i, roll in enumerate(beginnings) if roll.any()), None)
    if number is None:
        samples.answer.append(f"{corpus}: every test tune begins with silence, so none is continued.")
        return
    tunes = {"original": original(anyone, "test", number, NOTE_STEPS)}
    methods = {}
    for method, trained in chosen.items():
        heading = _heading(trained.run)
        tunes[heading] = sample_tune(trained, "test", number, NOTE_STEPS, TEMPERATURE, SEED)
        methods[heading] = method
    for heading, tune in tunes.items():
        name = f"{corpus}-{methods.get(heading, 'original')}"
        files = {f"{name}.mid": tune.midi(), f"{name}.mp3": tune.mp3()}
        write_together({samples.folder / file: content for file, content in files.items()})
        samples.files += files
        about = f"{corpus} test {number}, {heading}"
        samples.links.append({"text": f"{about} (MIDI)", "href": f"{name}.mid"})
        said = f"{about}; its continuation begins at {tune.timing.seconds(tune.begins):.1f} s"
        samples.sounds.append({"text": said, "href": f"{name}.mp3"})
    with style.context(["default", RC]):
        figure = draw(tunes, methods)
        figure.suptitle(f"{corpus}, test tune {number}", fontsize=9, color="0.35")
        samples.files += [path.name for path in save(figure, samples.folder / f"{corpus}-piano_rolls")]
    samples.figures.append(f"{corpus}-piano_rolls.svg")
    begins = tunes["original"].begins
    samples.answer.append(
        f"{corpus}: the first {begins} steps of test tune {number}, continued for {NOTE_STEPS} steps by the run of "
        f"each method that is best on validation, with the same random numbers at temperature {TEMPERATURE:g}."
    )
    samples.answer += [
        f"{corpus}, {name}: after the beginning, {_counted(tune, known)}." for name, tune in tunes.items()
    ]


def _counted(tune: Tune, known: npt.NDArray[np.int64]) -> str:
    """The continuation of a tune in numbers; `known`: the pitches of the training tunes."""
    rows = tune.roll[tune.begins :]
    notes = sounding(rows, tune.lowest, 1)
    if not notes:
        return "silence"
    length = fmean(note.end - note.start for note in notes)
    strange = sum(note.pitch not in known for note in notes)
    return (
        f"{rows.sum() / len(rows):.1f} notes per step, {length:.1f} steps per note, "
        f"{strange} of {len(notes)} notes at pitches that no training tune has"
    )


def _write_words(samples: Samples, corpus: str, chosen: Mapping[str, Trained]) -> None:
    anyone = next(iter(chosen.values()))
    assert isinstance(anyone.corpus, Words)
    prompts, units = _prompts(anyone.corpus), "words" if anyone.corpus.separator else "characters"
    for seed, prompt in enumerate(prompts, SEED):
        for trained in chosen.values():
            text = sample_text(trained, prompt, TOKENS, TEMPERATURE, seed)
            about = {"title": f"{corpus}, {_heading(trained.run)}"}
            samples.texts.append(about | {"prompt": text.prompt, "continuation": text.continuation})
    rule = (
        f"{corpus}: the first {GIVEN} {units} of each of the first {len(prompts)} test sentences, continued for "
        f"{TOKENS} {units} by the run of each method that is best on validation, with the same random numbers at "
        f"temperature {TEMPERATURE:g}."
    )
    texts = [text for text in samples.texts if text["title"].startswith(f"{corpus}, ")]
    parts = [f"{t['title']}\n{t['prompt']} | {t['continuation']}\n" for t in texts]
    name = f"{corpus}.txt"
    write_text(
        samples.folder / name, "\n".join([f"{rule} The continuation begins at the first |.\n", *parts])
    )
    samples.files.append(name)
    samples.links.append({"text": f"{corpus}, all continuations (text)", "href": name})
    samples.answer.append(rule)


def _prompts(words: Words) -> list[str]:
    """The beginnings of the first sentences of the test split, in words of the model's vocabulary."""
    ends = np.flatnonzero(words.test == words.vocabulary.index(EOS))[:SENTENCES]
    begins = [0, *(ends[:-1] + 1)]
    sentences = (words.test[a : min(b, a + GIVEN)] for a, b in zip(begins, ends, strict=True))
    return [decode(ids.tolist(), words.vocabulary, words.separator) for ids in sentences]


def _heading(run: Run) -> str:
    setting = title(Setting(run.method, run.value))
    return f"{setting} (seed {run.seed}, validation {run.best['valid']:.4g} {UNITS[run.metric]})"
