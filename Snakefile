"""Corpora -> training -> MLflow, tables, figures, report. Parameters: params.yaml. Start: `snakemake --cores all`."""

import sys

from snakemake.utils import min_version

min_version("9.27")


# Before the includes: it holds for the rules after it, and only with --software-deployment-method apptainer.
# `make sif` makes the image (docs/containers.md).
container: "spectralgru.sif"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/experiments.smk"


report: "workflow/report/workflow.rst"


localrules:
    all,
    report,
    prepare_all,
    train_all,
    learning_rate,
    beyond,
    cost,


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        PROVENANCE,
        rules.write_samples.output,
        rules.write_report.output,
        expand(
            f"{ROOT}/experiments/{{experiment}}/summary.json",
            experiment=PARAMS.experiments,
        ),
        expand(f"{ROOT}/tracking/{{corpus}}.json", corpus=CORPORA),


rule report:
    input:
        rules.write_report.output,


rule prepare_all:
    input:
        expand("data/prepared/{corpus}.npz", corpus=CORPORA),


rule train_all:
    input:
        trained_all,


onsuccess:
    print(SUCCESS)


onerror:
    print(FAILURE, file=sys.stderr)
