"""Every profile is accepted by a dry run, without any cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from campaign import ROOT, TABLE, Campaign


@pytest.mark.parametrize("profile", ["default", "gpu", "slurm", "kubernetes", "cluster-generic"])
def test_a_dry_run_accepts_the_profile(tmp_path: Path, profile: str) -> None:
    made = Campaign(tmp_path, constraint=[0.2], clipping=[5.0], seeds=[0])
    more = ("--cores", "2") if profile == "default" else ()
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
    assert container["command"][-1] == script
    assert container["workingDir"] == "/volume/project"
    assert container["volumeMounts"] == [{"name": "work", "mountPath": "/volume"}]
    assert pod["volumes"] == [{"name": "work", "persistentVolumeClaim": {"claimName": "lab"}}]
    assert made["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["automountServiceAccountToken"] is False
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (
        os.getuid(),
        os.getgid(),
    )
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    json.dumps(made)


def test_the_generic_executor_runs_the_workflow(tmp_path: Path, commands: Path) -> None:
    """Its submit command here starts each job script on this machine: the profile's own path, without a cluster."""
    made = Campaign(tmp_path, constraint=[0.2], clipping=[5.0], seeds=[0], commands=commands)
    made.use_tiny_corpus()
    profile = ("--profile", str(ROOT / "workflow/profiles/cluster-generic"), "--latency-wait", "5")
    submit = ("--cluster-generic-submit-cmd", "sh -c 'setsid sh $0 > /dev/null 2>&1 & echo $!'")
    more = ("--set-resources", "train_setting:gpu=0", "--set-threads", "train_setting=1", "--jobs", "2")
    often = ("--seconds-between-status-checks", "1")
    code, output = made.run(*profile, *submit, *more, *often, "--", TABLE)
    assert code == 0, output
    assert len(made.tables()) == 4


# A cluster of one machine: pods are processes, and every other question goes unanswered.
KUBECTL = """#!/usr/bin/env python
import json, subprocess, sys
from pathlib import Path
home = Path(__file__).parent
with (home / "calls").open("a") as file:
    file.write("x")
arguments = sys.argv[1:]
verb = next(word for word in ("apply", "get", "delete") if word in arguments)
if (home / "down").exists() or verb != "delete" and len((home / "calls").read_text()) % 2:
    sys.exit("Unable to connect to the server: net/http: TLS handshake timeout")
if verb == "apply":
    job = json.load(sys.stdin)
    pod = home / job["metadata"]["name"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    subprocess.Popen(
        ["bash", "-c", 'echo $$ > "$0.pid"; "$@"; echo $? > "$0.code"', str(pod), *container["command"]],
        cwd=container["workingDir"], start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=(home / "output").open("a"), stderr=subprocess.STDOUT)
elif verb == "get":
    pod = home / arguments[arguments.index("job") + 1]
    if pod.with_suffix(".pid").exists():
        code = pod.with_suffix(".code")
        ended = code.exists() and {"succeeded" if int(code.read_text()) == 0 else "failed": 1}
        print(json.dumps({"status": ended or {"active": 1}}))
"""
JOB = f"{sys.executable} {ROOT / 'workflow/profiles/kubernetes/job.py'}"


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """The folder of the cluster's state, to be put into PATH."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "kubectl").write_text(KUBECTL)
    (folder / "kubectl").chmod(0o755)
    return folder


def first_process(supervisor: int) -> int:
    """Process 1 of a pod: the only child of what started it."""
    below = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    return int(below.read_text().split()[0])


def test_a_pod_told_to_stop_writes_a_checkpoint_and_the_next_goes_on_from_it(
    tmp_path: Path, cluster: Path
) -> None:
    """Submitted, asked for (every other time in vain), evicted in the middle, started again, done."""
    made = Campaign(tmp_path / "work", constraint=[0.2], clipping=[], seeds=[0])
    made.ptb["training"]["epochs"] = 150
    made.write_params()
    made.use_tiny_corpus()
    options = (
        "--profile",
        str(ROOT / "workflow/profiles/kubernetes"),
        "--latency-wait",
        "5",
        "--retries",
        "1",
    )
    options += tuple(
        word
        for verb in ("submit", "status", "cancel")
        for word in (f"--cluster-generic-{verb}-cmd", f"{JOB} {verb}")
    )
    options += ("--set-resources", "train_setting:gpu=0", "--set-threads", "train_setting=1")
    environment = {
        "PATH": f"{cluster}:{made.environment['PATH']}",
        "SPECTRALGRU_IMAGE": "registry/spectralgru:1",
        "SPECTRALGRU_CLAIM": "lab",
        "SPECTRALGRU_CHECKPOINT_SECONDS": "600",
    }
    target = "results/quick/runs/ptb/constraint-0.2/setting.json"
    process = made.start(*options, "--seconds-between-status-checks", "1", "--", target, **environment)
    try:
        until = time.monotonic() + 120
        while not any(made.folder.glob("results/quick/runs/ptb/*/seed-0/history.csv")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        (pod,) = cluster.glob("*.pid")
        os.kill(first_process(int(pod.read_text())), signal.SIGTERM)
        while not pod.with_suffix(".code").exists():
            time.sleep(0.05)
        assert any((made.folder / ".checkpoints").glob("*.pt"))
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output + (cluster / "output").read_text()
    finally:
        process.kill()
    assert len(list(cluster.glob("*.pid"))) == 2
    assert any("resumed at epoch" in path.read_text() for path in made.folder.rglob("*.log"))


def test_a_cluster_that_does_not_answer_is_not_a_job_that_failed(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a job that is gone one that runs."""
    monkeypatch.setenv("PATH", str(cluster), prepend=os.pathsep)

    def status() -> tuple[int, str, str]:
        answer = subprocess.run([*JOB.split(), "status", "spectralgru-0"], capture_output=True, text=True)
        return answer.returncode, answer.stdout, answer.stderr.splitlines()[-1]

    assert status() == (0, "failed\n", "job spectralgru-0: not there any more")
    (cluster / "down").touch()
    assert status() == (0, "running\n", "job spectralgru-0: the cluster does not answer, asking again later")
