from spectralgru.pipeline.results.names import ARTICLE, CLAIMS, REPORT


# Environment, resources and command of the rules after it, too.
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
        mem_mb=2000,
        runtime=10,
    params:
        command="tables",
        places=OUT,
        of=OF_ALL,
    shell:
        "spectralgru {params.command} {params.places} {params.of} > {log} 2>&1"


use rule write_tables as draw_figures with:
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
    params:
        command="figures",
        places=f"{OUT} {IN}",
        of="--corpus {corpus}",


use rule write_tables as write_claims with:
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
    params:
        command="claims",
        places=OUT,
        of=OF_ALL,


use rule write_tables as write_provenance with:
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
    params:
        command="provenance",
        places=f"{OUT} {IN}",
        of=OF_ALL,


use rule write_tables as write_samples with:
    # The MIDI files, sounds, piano rolls and texts beside the summary are named in it.
    input:
        trained_all,
    output:
        f"{ROOT}/samples/summary.json",
    log:
        f"{LOGS}/samples/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/samples/{SCALE}.tsv"
    params:
        command="samples",
        places=f"{OUT} {IN}",
        of=OF_ALL,


use rule write_tables as write_report with:
    # Other experiments are shown too, if they are present; `date_by_contents` sees when they change.
    input:
        rules.write_provenance.output,
        rules.write_samples.output,
        expand(
            f"{ROOT}/experiments/{{experiment}}/summary.json",
            experiment=EXPERIMENTS,
        ),
    output:
        f"{ROOT}/{REPORT}",
    log:
        f"{LOGS}/report/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/report/{SCALE}.tsv"
    params:
        command="report",
        places=OUT,
        of="",


use rule write_report as write_article with:
    output:
        [f"{ROOT}/{name}" for name in ARTICLE],
    log:
        f"{LOGS}/article/{SCALE}.log",
    benchmark:
        f"{LOGS}/benchmarks/article/{SCALE}.tsv"
    params:
        command="article",
        places=OUT,
        of="",


use rule write_tables as track_runs with:
    input:
        trained,
        rules.draw_figures.output,
        rules.write_samples.output,
    output:
        f"{ROOT}/tracking/{{corpus}}.json",
    log:
        f"{LOGS}/track/{SCALE}/{{corpus}}.log",
    benchmark:
        f"{LOGS}/benchmarks/track/{SCALE}/{{corpus}}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        command="track",
        places=f"{OUT} {IN}",
        of=lambda wildcards, output: f"--corpus {wildcards.corpus} --summary {output}",
