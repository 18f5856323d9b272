"""Corpora -> training -> MLflow, tables, figures, report. Parameters: params.yaml. Start: `snakemake --cores all`."""


include: "workflow/rules/workflow.smk"


rule all:
    default_target: True
    input:
        EVERYTHING,
