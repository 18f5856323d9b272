"""Questions that the paper's tables leave open, each answered by a separate experiment, in a package of its own.

`base` defines what an experiment is; `pipeline.params.experiments` has its settings in params.yaml.
"""
