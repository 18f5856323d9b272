rule train_setting:
    # Run directories are not declared as outputs: Snakemake would delete finished seeds before training one more.
    # A summary that is not of the settings, data and code of today is dated before its inputs by `date_by_contents`, and so made again.
    input:
        rules.prepare_corpus.output.arrays,
    output:
        f"{ROOT}/runs/{{corpus}}/{{setting}}/setting.json",
    log:
        f"{LOGS}/train/{SCALE}/{{corpus}}/{{setting}}.log",
    benchmark:
        f"{LOGS}/benchmarks/train/{SCALE}/{{corpus}}/{{setting}}.tsv"
    retries: 2
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60 if SCALE == "quick" else 7 * 24 * 60,
        gpu=0,
        processes=1,
    params:
        places=f"{OUT} {IN}",
        setting=setting_options,
    shell:
        "spectralgru train {params.places} --corpus {wildcards.corpus} {params.setting} "
        "--threads {threads} --gpus {resources.gpu} --processes {resources.processes} > {log} 2>&1"
