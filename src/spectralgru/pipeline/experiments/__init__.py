"""Questions that the paper's tables leave open, each answered by an experiment in its own package.

`base` defines what an experiment is; `pipeline.params.experiments` has its settings in params.yaml.
"""
