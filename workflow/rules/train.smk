rule train_setting:
    # Run directories are not declared as outputs: Snakemake would delete finished seeds before training one more.
    input:
        rules.prepare_corpus.output.arrays,
    output:
        f"{ROOT}/runs/{{corpus}}/{{setting}}/setting.json",
    params:
        job=job_of,
        code=code_sha256(),
        method=lambda wildcards: setting_of(wildcards.setting)[0],
        value=lambda wildcards: "".join(f"--value {v}" for v in setting_of(wildcards.setting)[1:] if v),
    log:
        f"logs/train/{SCALE}/{{corpus}}/{{setting}}.log",
    benchmark:
        f"logs/benchmarks/train/{SCALE}/{{corpus}}/{{setting}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60 if SCALE == "quick" else 7 * 24 * 60,
        gpu=0,
    retries: 2
    conda:
        "../../envs/environment.yaml"
    shell:
        "spectralgru train --scale {SCALE} --corpus {wildcards.corpus} --method {params.method} {params.value} "
        "--threads {threads} --out {ROOT} > {log} 2>&1"
