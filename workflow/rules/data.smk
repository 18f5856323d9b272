rule prepare_corpus:
    output:
        arrays="data/prepared/{corpus}.npz",
        record="data/prepared/{corpus}.json",
    log:
        "logs/prepare/{corpus}.log",
    benchmark:
        "logs/benchmarks/prepare/{corpus}.tsv"
    resources:
        mem_mb=2000,
        runtime=15,
    conda:
        "../../envs/environment.yaml"
    shell:
        "spectralgru prepare --corpus {wildcards.corpus} > {log} 2>&1"
