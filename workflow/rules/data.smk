rule prepare_corpus:
    # What another recipe prepared is dated before its inputs by `date_by_contents`, and so made again.
    input:
        RECIPE,
    output:
        arrays="data/prepared/{corpus}.npz",
        record="data/prepared/{corpus}.json",
    log:
        "logs/prepare/{corpus}.log",
    benchmark:
        "logs/benchmarks/prepare/{corpus}.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    shell:
        "spectralgru prepare --corpus {wildcards.corpus} > {log} 2>&1"
