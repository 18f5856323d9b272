"""Questions beyond the paper's tables: each experiment is made of parts, and concluded when all are there."""


rule learning_rate:
    input:
        f"{ROOT}/experiments/learning_rate/summary.json",


rule cost:
    input:
        f"{ROOT}/experiments/cost/summary.json",


rule beyond:
    input:
        f"{ROOT}/experiments/beyond/summary.json",


rule readings:
    input:
        f"{ROOT}/experiments/readings/summary.json",


rule make_part:
    # What a part trains lies beside its record and is not declared: a remade part trains only what is missing.
    input:
        rules.prepare_corpus.output.arrays,
    output:
        f"{ROOT}/experiments/{{experiment}}/parts/{{corpus}}/{{part}}.json",
    log:
        f"{LOGS}/experiments/{SCALE}/{{experiment}}/{{corpus}}/{{part}}.log",
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
    shell:
        "spectralgru experiment {wildcards.experiment} {params.places} --corpus {wildcards.corpus} "
        "--part {wildcards.corpus}/{wildcards.part} "
        "--threads {threads} --gpus {resources.gpu} --processes {resources.processes} > {log} 2>&1"


rule conclude_experiment:
    input:
        made_parts,
    output:
        f"{ROOT}/experiments/{{experiment}}/summary.json",
    log:
        f"{LOGS}/experiments/{SCALE}/{{experiment}}/conclusion.log",
    conda:
        "../envs/environment.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        places=f"{OUT} {IN}",
        corpora=OF_ALL,
    shell:
        "spectralgru experiment {wildcards.experiment} {params.places} {params.corpora} --conclude > {log} 2>&1"
