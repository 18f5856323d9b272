rule prepare_corpus:
    # What another recipe prepared is dated before its inputs by `date_by_contents`, and so made again.
    input:
        RECIPE,
    output:
        arrays=f"{DATA}/prepared/{{corpus}}.npz",
        record=f"{DATA}/prepared/{{corpus}}.json",
    log:
        f"{LOGS}/prepare/{{corpus}}.log",
    benchmark:
        f"{LOGS}/benchmarks/prepare/{{corpus}}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        places=f"{IN} --params {quote(str(FILE))}",
    shell:
        "spectralgru prepare --corpus {wildcards.corpus} {params.places} > {log} 2>&1"
