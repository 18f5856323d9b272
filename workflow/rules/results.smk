rule write_tables:
    input:
        trained_all,
    output:
        [
            report(path, caption="../report/tables.rst", category="Tables") if path.endswith(".html") else path
            for path in TABLES
        ],
    params:
        corpora=" ".join(f"--corpus {corpus}" for corpus in CORPORA),
    log:
        f"logs/tables/{SCALE}.log",
    benchmark:
        f"logs/benchmarks/tables/{SCALE}.tsv"
    resources:
        mem_mb=1000,
        runtime=10,
    conda:
        "../../envs/environment.yaml"
    shell:
        "spectralgru tables --scale {SCALE} {params.corpora} > {log} 2>&1"


rule draw_figures:
    input:
        trained,
    output:
        [
            (
                report(path, caption=f"../report/{name}.rst", category="Figures", subcategory="{corpus}")
                if path.endswith(".svg")
                else path
            )
            for name in FIGURE_NAMES
            for path in expand(f"{ROOT}/figures/{{{{corpus}}}}-{name}.{{suffix}}", suffix=["svg", "pdf"])
        ],
    log:
        f"logs/figures/{SCALE}/{{corpus}}.log",
    benchmark:
        f"logs/benchmarks/figures/{SCALE}/{{corpus}}.tsv"
    resources:
        mem_mb=2000,
        runtime=10,
    conda:
        "../../envs/environment.yaml"
    shell:
        "spectralgru figures --scale {SCALE} --corpus {wildcards.corpus} > {log} 2>&1"


rule track_runs:
    input:
        trained,
        rules.draw_figures.output,
    output:
        f"{ROOT}/tracking/{{corpus}}.json",
    log:
        f"logs/track/{SCALE}/{{corpus}}.log",
    benchmark:
        f"logs/benchmarks/track/{SCALE}/{{corpus}}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    conda:
        "../../envs/environment.yaml"
    shell:
        "spectralgru track --scale {SCALE} --corpus {wildcards.corpus} --summary {output} > {log} 2>&1"
