from spectralgru.pipeline.results.names import CLAIMS, REPORT


rule write_tables:
    input:
        trained_all,
    output:
        [
            (
                report(path, caption="../report/tables.rst", category="Tables")
                if path.endswith(".html")
                else path
            )
            for path in TABLES
        ],
    log:
        f"{LOGS}/tables/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/tables/{SCALE}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        places=OUT,
        corpora=OF_ALL,
    shell:
        "spectralgru tables {params.places} {params.corpora} > {log} 2>&1"


rule draw_figures:
    input:
        trained,
    output:
        [
            (
                report(
                    path,
                    caption=f"../report/{name}.rst",
                    category="Figures",
                    subcategory="{corpus}",
                )
                if path.endswith(".svg")
                else path
            )
            for name in FIGURE_NAMES
            for path in expand(
                f"{ROOT}/figures/{{{{corpus}}}}-{name}.{{suffix}}",
                suffix=["svg", "pdf"],
            )
        ],
    log:
        f"{LOGS}/figures/{SCALE}/{{corpus}}.log",
    benchmark:
        f"{LOGS}/benchmarks/figures/{SCALE}/{{corpus}}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        places=OUT,
    shell:
        "spectralgru figures {params.places} --corpus {wildcards.corpus} > {log} 2>&1"


rule write_claims:
    input:
        trained_all,
    output:
        [
            (
                report(
                    f"{ROOT}/{name}", caption="../report/claims.rst", category="Claims"
                )
                if name.endswith(".html")
                else f"{ROOT}/{name}"
            )
            for name in CLAIMS
        ],
    log:
        f"{LOGS}/claims/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/claims/{SCALE}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        places=OUT,
        corpora=OF_ALL,
    shell:
        "spectralgru claims {params.places} {params.corpora} > {log} 2>&1"


rule write_provenance:
    input:
        TABLES,
        FIGURES,
        rules.write_claims.output,
    output:
        [
            (
                report(path, caption="../report/provenance.rst", category="Provenance")
                if path.endswith(".html")
                else path
            )
            for path in PROVENANCE
        ],
    log:
        f"{LOGS}/provenance/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/provenance/{SCALE}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        places=f"{OUT} {IN}",
        corpora=OF_ALL,
    shell:
        "spectralgru provenance {params.places} {params.corpora} > {log} 2>&1"


rule write_samples:
    # The MIDI files, piano rolls and texts beside the summary are named in it.
    input:
        trained_all,
    output:
        f"{ROOT}/samples/summary.json",
    log:
        f"{LOGS}/samples/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/samples/{SCALE}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        places=f"{OUT} {IN}",
        corpora=OF_ALL,
    shell:
        "spectralgru samples {params.places} {params.corpora} > {log} 2>&1"


rule write_report:
    # Experiments not asked for are shown too, if they are there; `date_by_contents` sees when they change.
    input:
        rules.write_provenance.output,
        rules.write_samples.output,
        expand(
            f"{ROOT}/experiments/{{experiment}}/summary.json",
            experiment=PARAMS.experiments,
        ),
    output:
        f"{ROOT}/{REPORT}",
    log:
        f"{LOGS}/report/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/report/{SCALE}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        places=OUT,
    shell:
        "spectralgru report {params.places} > {log} 2>&1"


rule track_runs:
    input:
        trained,
        rules.draw_figures.output,
    output:
        f"{ROOT}/tracking/{{corpus}}.json",
    log:
        f"{LOGS}/track/{SCALE}/{{corpus}}.log",
    benchmark:
        f"{LOGS}/benchmarks/track/{SCALE}/{{corpus}}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        places=f"{OUT} {IN}",
    shell:
        "spectralgru track {params.places} --corpus {wildcards.corpus} --summary {output} > {log} 2>&1"
