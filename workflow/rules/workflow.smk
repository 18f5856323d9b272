"""The workflow but for its first target, which Snakemake takes only from the file that it starts with."""

import sys

from snakemake.utils import min_version

min_version("9.27")


# Before the includes: it holds for the rules after it, and only with --software-deployment-method apptainer.
# `make sif` makes the image (docs/containers.md).
container: "spectralgru.sif"


include: "common.smk"
include: "data.smk"
include: "train.smk"
include: "results.smk"
include: "experiments.smk"


report: "../report/workflow.rst"


localrules:
    all,
    report,
    article,
    prepare_all,
    train_all,
    learning_rate,
    beyond,
    cost,
    readings,


rule report:
    input:
        rules.write_report.output,


rule article:
    input:
        rules.write_article.output,


rule prepare_all:
    input:
        expand(f"{DATA}/prepared/{{corpus}}.npz", corpus=CORPORA),


rule train_all:
    input:
        trained_all,


EVERYTHING = [
    TABLES,
    FIGURES,
    PROVENANCE,
    rules.write_samples.output,
    rules.write_report.output,
    rules.write_article.output,
    expand(
        f"{ROOT}/experiments/{{experiment}}/summary.json",
        experiment=EXPERIMENTS,
    ),
    expand(f"{ROOT}/tracking/{{corpus}}.json", corpus=CORPORA),
]


onsuccess:
    print(SUCCESS)


onerror:
    print(FAILURE, file=sys.stderr)
