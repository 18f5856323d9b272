"""params.yaml as types; together with `fields` and `experiments`, the only place that knows its keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from spectralgru.errors import InputError, shown
from spectralgru.files import write_text
from spectralgru.pipeline.corpora import CORPORA, Kind
from spectralgru.pipeline.corpora.own import Definitions
from spectralgru.pipeline.params.experiments import ExperimentName, Experiments
from spectralgru.pipeline.params.fields import (
    CorpusName,
    CorpusOrKind,
    CorpusSettings,
    Methods,
    Seeds,
    Strict,
    distinct,
    explain,
)
from spectralgru.pipeline.params.keys import with_keys
from spectralgru.pipeline.strict_yaml import read_yaml
from spectralgru.records import run_path
from spectralgru.setting import Setting
from spectralgru.training.settings import Job, Replica

Scale = Literal["quick", "paper"]
OVERRIDABLE = ("scale", "corpora", "experiments")  # options of the commands override them, too


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Corpora = Annotated[list[CorpusName], Field(min_length=1), AfterValidator(distinct)]


class Section(Strict):
    """One scale."""

    run: Corpora
    seeds: Seeds
    settings: dict[CorpusOrKind, CorpusSettings] = Field(
        description="of each corpus; of own ones without settings: those of their kind, notes or words"
    )
    experiments: Experiments = Field(Experiments(), description="settings of each experiment")


class Params(Strict):
    """params.yaml."""

    scale: Scale = "quick"
    own: Definitions = Field(default_factory=dict, description="corpora of the user's own")
    corpora: Annotated[Corpora | None, BeforeValidator(_listed)] = Field(
        None, description="one name or several, instead of the scale's own list"
    )
    experiments: Annotated[list[ExperimentName], BeforeValidator(_listed), AfterValidator(distinct)] = Field(
        default_factory=list, description="questions beyond the paper's tables that `snakemake` answers too"
    )
    parallel: Literal["replicas", "batch"] = Field(
        "replicas",
        description="how a training given several processes is spread over them: runs (replicas), or every batch",
    )
    quick: Section
    paper: Section

    @model_validator(mode="after")
    def _corpora_have_settings(self) -> "Params":
        for scale, section in (("quick", self.quick), ("paper", self.paper)):
            chosen = self.chosen_corpora() if scale == self.scale else section.run
            for corpus in chosen:
                if self._settings(section, corpus) is None:
                    known = ", ".join(section.settings)
                    raise ValueError(f"{corpus} is to run, but {scale}.settings has only {known}")
        return self

    @model_validator(mode="after")
    def _experiments_have_settings(self) -> "Params":
        for name in self.experiments:
            if getattr(self.section.experiments, name) is None:
                raise ValueError(f"{name} is to run, but {self.scale}.experiments has no settings for it")
        for scale, section in (("quick", self.quick), ("paper", self.paper)):
            for experiment, corpus in section.experiments.corpora():
                if self._settings(section, corpus) is None:
                    raise ValueError(
                        f"{scale}.experiments.{experiment} names {corpus}, which {scale}.settings lacks"
                    )
        return self

    @property
    def section(self) -> Section:
        """The section of the chosen scale."""
        return self.quick if self.scale == "quick" else self.paper

    def kind(self, corpus: str) -> Kind | None:
        """Whether a corpus has words or notes; None for an unknown one."""
        return CORPORA.get(corpus) or (self.own[corpus].kind if corpus in self.own else None)

    def words(self) -> list[str]:
        """The corpora that have words."""
        return [corpus for corpus in (*CORPORA, *self.own) if self.kind(corpus) == "words"]

    def _settings(self, section: Section, corpus: str) -> CorpusSettings | None:
        """The settings of a corpus; a user's own corpus without settings has those of its kind."""
        default = self.own[corpus].kind if corpus in self.own else ""
        return section.settings.get(corpus) or section.settings.get(default)

    def chosen_corpora(self) -> list[CorpusName]:
        """Corpora to run, in order."""
        return self.section.run if self.corpora is None else self.corpora

    def of_corpus(self, corpus: str) -> CorpusSettings:
        """The settings of a corpus at the chosen scale."""
        if chosen := self._settings(self.section, corpus):
            return chosen
        known = ", ".join(self.section.settings)
        raise InputError(
            f"corpus {corpus!r} has no settings at scale {self.scale}; it must be one of {known}"
        )

    def settings(self, corpus: str) -> list[Setting]:
        """Every setting to run on a corpus, in the order of the paper's tables."""
        return in_order(self.of_corpus(corpus).methods)

    def run_directories(self, corpus: str) -> list[Path]:
        """Every run directory of a corpus, relative to results/<scale>."""
        return [
            run_path(".", corpus, *setting, seed)
            for setting in self.settings(corpus)
            for seed in self.section.seeds
        ]

    def job(self, corpus: str, settings: Sequence[Setting], seeds: Sequence[int] | None = None) -> Job:
        """One job with the runs of these settings and every seed (None: the seeds of the scale)."""
        shared = self.of_corpus(corpus)
        seeds = self.section.seeds if seeds is None else parse_seeds(seeds)
        return make_job(corpus, self.scale, shared, settings, seeds)


def in_order(methods: Methods) -> list[Setting]:
    """Every setting, in the order of the paper's tables."""
    settings = [Setting("constraint", delta) for delta in methods.constraint]
    settings += [Setting("clipping", threshold) for threshold in methods.clipping]
    return settings + ([Setting("none")] if methods.none else [])


def make_job(
    corpus: str, scale: Scale, shared: CorpusSettings, settings: Sequence[Setting], seeds: Sequence[int]
) -> Job:
    """The trainer's job with runs that share everything but method, value and seed."""
    rate = shared.training.learning_rate
    replicas = tuple(Replica(*setting, seed, rate) for setting in settings for seed in seeds)
    return Job(corpus, scale, shared.data, shared.model, shared.training, replicas)


def load_params(path: Path, overrides: dict[str, Any] | None = None) -> Params:
    """Read and validate params.yaml; `overrides` replace top-level keys."""
    return parse_params(read_params(path) | (overrides or {}), str(path))


def asked(config: dict[str, Any], path: Path, kept: Path) -> tuple[Params, Path]:
    """The parameters of a workflow, and the file in which its jobs find them.

    The keys of Snakemake's `config` replace those of the file `path`. If it holds both scales, as in a workflow that
    imports this one, it replaces the file; the jobs then read the file `kept`, which `write_params` writes.
    """
    if {"quick", "paper"} <= config.keys():
        return parse_params(dict(config), "config"), kept
    written = read_params(path)
    for key in config:
        if key not in OVERRIDABLE and config[key] != written.get(key):
            raise InputError(
                f"--config {shown(key)[1:-1]}: jobs would not see it; change {path} "
                f"({', '.join(OVERRIDABLE)} may be overridden)"
            )
    return parse_params(written | config, str(path)), path


def write_params(params: Params, path: Path) -> None:
    """Write params.yaml unless the file has this content already."""
    text = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def read_params(path: Path) -> dict[str, Any]:
    """The keys and values of params.yaml, not yet validated."""
    try:
        values = read_yaml(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); run in the project's folder or name the file"
        ) from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold keys and values, found {type(values).__name__}")
    return values


def parse_params(values: dict[str, Any], source: str = "params.yaml") -> Params:
    """Validate the content of params.yaml; raises InputError for the first error."""
    try:
        own = values.get("own")
        return Params.model_validate(values, context=[*own] if isinstance(own, dict) else [])
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error)}") from None


def parse_setting(method: str, value: float | None) -> Setting:
    """Validate a method and its value given as options."""
    try:
        if method == "none" and value is None:
            return Setting("none")
        if method in ("constraint", "clipping") and value is not None:
            return in_order(Methods.model_validate({method: [value], "none": False}))[0]
    except ValidationError as error:
        raise InputError(f"--value: {explain(error)}") from None
    raise InputError(
        f"--method {method} with --value {value}: use constraint with a delta, clipping with a threshold, or none alone"
    )


def parse_seeds(seeds: Sequence[int]) -> list[int]:
    """Validate seeds given as options."""
    try:
        return TypeAdapter(dict[str, Seeds]).validate_python({"--seeds": list(seeds)})["--seeds"]
    except ValidationError as error:
        raise InputError(explain(error)) from None


def with_changes(params: Params, corpus: str, changes: list[str]) -> Params:
    """Apply `key=value` changes (`training.epochs=2`) to the settings of one corpus and validate again."""
    values = params.model_dump(mode="json")
    settings = params.of_corpus(corpus).model_dump(mode="json")
    values[params.scale]["settings"][corpus] = with_keys(settings, changes)
    return parse_params(values, "--set")


def json_schema() -> dict[str, Any]:
    """JSON schema of params.yaml, for editors and for validation by Snakemake."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
