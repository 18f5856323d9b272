"""Every profile is accepted by a dry run, without any cluster."""

import json
import sys
from pathlib import Path

import pytest

from campaign import ROOT, TABLE, Campaign


@pytest.mark.parametrize("profile", ["default", "gpu", "slurm", "kubernetes", "cluster-generic"])
def test_a_dry_run_accepts_the_profile(tmp_path: Path, profile: str) -> None:
    made = Campaign(tmp_path, constraint=[0.2], clipping=[5.0], seeds=[0])
    more = ("--cores", "2") if profile in ("default", "gpu") else ()
    code, output = made.run("--dry-run", "--profile", str(ROOT / "workflow/profiles" / profile), *more, TABLE)
    assert code == 0, output
    assert output.count("rule train_setting:") == 2
    assert ("gpu=1" in output) == (profile != "default")


def test_a_kubernetes_job_asks_for_what_the_rule_does(tmp_path: Path) -> None:
    """From a job script as Snakemake writes it."""
    sys.path.insert(0, str(ROOT / "workflow/profiles/kubernetes"))
    from job import manifest

    about = {"rule": "train_setting", "threads": 4, "resources": {"mem_mb": 4000, "runtime": 60, "gpu": 2}}
    script = f"#!/bin/sh\n# properties = {json.dumps(about)}\ncd /volume/project && snakemake one job\n"
    environment = {
        "SPECTRALGRU_IMAGE": "registry/spectralgru:1",
        "SPECTRALGRU_CLAIM": "lab",
        "SPECTRALGRU_MOUNT": "/volume",
    }
    made = manifest("spectralgru-0", script, Path("/volume/project"), environment)
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    expected = {"cpu": "4", "memory": "4000M", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"requests": expected, "limits": expected}
    assert container["command"] == ["bash", "-c", script]
    assert container["workingDir"] == "/volume/project"
    assert container["volumeMounts"] == [{"name": "work", "mountPath": "/volume"}]
    assert pod["volumes"] == [{"name": "work", "persistentVolumeClaim": {"claimName": "lab"}}]
    assert made["spec"]["activeDeadlineSeconds"] == 3600
    json.dumps(made)


def test_the_generic_executor_runs_the_workflow(tmp_path: Path) -> None:
    """Its submit command here starts each job script on this machine: the profile's own path, without a cluster."""
    made = Campaign(tmp_path, constraint=[0.2], clipping=[5.0], seeds=[0])
    made.use_tiny_corpus()
    profile = ("--profile", str(ROOT / "workflow/profiles/cluster-generic"), "--latency-wait", "5")
    submit = ("--cluster-generic-submit-cmd", "sh -c 'setsid sh $0 > /dev/null 2>&1 & echo $!'")
    more = ("--set-resources", "train_setting:gpu=0", "--set-threads", "train_setting=1", "--jobs", "2")
    code, output = made.run(*profile, *submit, *more, "--", TABLE)
    assert code == 0, output
    assert len(made.tables()) == 4
