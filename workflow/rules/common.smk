"""What the rules share: validated parameters, names and messages."""

import sys
from os.path import exists, isdir
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError

from spectralgru.pipeline.corpora.recipe import FILE as RECIPE
from spectralgru.errors import InputError
from spectralgru.pipeline.experiments.base import chosen_parts
from spectralgru.pipeline.dates import date_by_contents
from spectralgru.pipeline.params import asked, write_params
from spectralgru.pipeline.presence import be_present, put_on_path
from spectralgru.pipeline.provenance.record import WRITTEN, other_selection
from spectralgru.setting import Setting
from spectralgru.pipeline.results.names import FIGURE_NAMES, NUMBERS, table_names

PLACES = {
    "params": "params.yaml",
    "data": "data",
    "results": "results",
    "logs": "logs",
}
PARAMETERS = {key: value for key, value in config.items() if key not in PLACES}
GIVEN, DATA, RESULTS, LOGS = (str(config.get(key, PLACES[key])) for key in PLACES)


def placed(folder):
    """Where a folder of the rules lies: elsewhere in a module with `prefix:`."""
    return Path(workflow.modifier.modify_path(f"{folder}/-")).parent


put_on_path()


def check_places():
    """Refuse places that no rule could write to; Snakemake would end in a traceback."""
    for key in PLACES:
        value = config.get(key, PLACES[key])
        if value in (None, "") or set("{}") & set(str(value)):
            raise InputError(f"--config {key}={value}: must be a path, without braces")
        path = placed(value)
        if key != "params" and exists(path) and not isdir(path):
            raise InputError(f"--config {key}={value}: not a folder; name another")


# No `configfile:`, for Snakemake would run Python that stands in it.
try:
    check_places()
    PARAMS, FILE = asked(PARAMETERS, Path(GIVEN), placed(RESULTS) / "params.yaml")
except InputError as error:
    print(f"spectralgru: {error}", file=sys.stderr)
    sys.exit(2)

SCALE = PARAMS.scale
CORPORA = PARAMS.chosen_corpora()
ROOT = f"{RESULTS}/{SCALE}"

# What every command is told of the user's own places.
IN = f"--data {quote(str(placed(DATA)))}"
OUT = f"--params {quote(str(FILE))} --scale {SCALE} --out {quote(str(placed(ROOT)))}"
OF_ALL = " ".join(f"--corpus {corpus}" for corpus in CORPORA)
EXPERIMENTS = list(PARAMS.experiments)
if any(PARAMS.of_corpus(corpus).readings for corpus in CORPORA):
    EXPERIMENTS.append("readings")
SETTINGS = {
    corpus: [setting.name for setting in PARAMS.settings(corpus)] for corpus in CORPORA
}
TABLE_NAMES = table_names(CORPORA, PARAMS.words())
TABLES = expand(
    f"{ROOT}/tables/{{name}}.{{suffix}}",
    name=TABLE_NAMES.values(),
    suffix=["csv", "md", "html", "tex"],
) + expand(f"{ROOT}/tables/{{name}}", name=NUMBERS)
FIGURES = expand(
    f"{ROOT}/figures/{{corpus}}-{{name}}.{{suffix}}",
    corpus=CORPORA,
    name=FIGURE_NAMES,
    suffix=["svg", "pdf"],
)

PROVENANCE = expand(f"{ROOT}/{{name}}", name=WRITTEN)

# Only the process that plans: jobs on other machines parse this file too.
if workflow.is_main_process:
    be_present()
    if FILE != Path(GIVEN):
        write_params(PARAMS, FILE)
    try:
        dated = date_by_contents(PARAMS, placed(DATA), placed(ROOT), placed(LOGS))
    except InputError as error:
        print(f"spectralgru: {error}", file=sys.stderr)
        sys.exit(2)
    for line in filter(None, (dated, other_selection(placed(ROOT), CORPORA))):
        print(f"spectralgru: {line}", file=sys.stderr)

SUCCESS = f"""
Everything is up to date at scale {SCALE}.
  tables   {ROOT}/tables/   (table1.md: words, table2.md: music; also csv, html, tex)
  figures  {ROOT}/figures/
  answers  {ROOT}/experiments/   (made with `snakemake --cores all learning_rate cost`)
  samples  {ROOT}/samples/   (continued by the best runs: tunes to hear, sentences to read)
  report   make report      the page to open first: {ROOT}/report.html
  article  {ROOT}/article.pdf
  runs     make ui          every run in MLflow, at the address that it prints
  paper    snakemake --cores all --config scale=paper      the paper's own settings (weeks on a CPU)
Before `snakemake` and `spectralgru`, once in each shell: source .venv/bin/activate
"""
FAILURE = f"""
A job failed; the last lines of its log stand above, the whole log below {LOGS}/. Finished runs are kept:
the same command continues from there.
"""


wildcard_constraints:
    corpus="|".join(CORPORA),
    experiment="[a-z_]+",
    part="[a-z0-9._-]+",
    setting=r"constraint-[0-9.e-]+|clipping-[0-9.e+-]+|none",


def setting_options(wildcards):
    """The setting as options of `spectralgru train`."""
    method, value = Setting.parse(wildcards.setting)
    return f"--method {method}" + ("" if value is None else f" --value {value}")


def trained(wildcards):
    """The finished settings of a corpus."""
    return [
        f"{ROOT}/runs/{wildcards.corpus}/{setting}/setting.json"
        for setting in SETTINGS[wildcards.corpus]
    ]


def trained_all(_wildcards):
    """The finished settings of every corpus."""
    return [
        f"{ROOT}/runs/{corpus}/{setting}/setting.json"
        for corpus in CORPORA
        for setting in SETTINGS[corpus]
    ]


def made_parts(wildcards):
    """The records of an experiment's parts."""
    try:
        parts = chosen_parts(PARAMS, wildcards.experiment)
    except InputError as error:
        raise WorkflowError(str(error))
    out = Path(ROOT, "experiments", wildcards.experiment)
    return [part.record(out) for part in parts]
