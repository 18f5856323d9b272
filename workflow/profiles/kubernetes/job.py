"""Kubernetes jobs for Snakemake's generic cluster executor, through kubectl.

    job.py submit JOBSCRIPT    print the name of the job made from it
    job.py status NAME         print running, success or failed
    job.py cancel NAME...      delete the jobs

SPECTRALGRU_IMAGE names the container image, SPECTRALGRU_CLAIM the volume claim mounted where this folder lies
(SPECTRALGRU_MOUNT, default: the folder itself), SPECTRALGRU_NAMESPACE the namespace.
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

MARK = "# properties = "


def properties(jobscript: str) -> dict[str, Any]:
    """What Snakemake wrote about the job into its script."""
    line = next(line for line in jobscript.splitlines() if line.startswith(MARK))
    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
    return found


def manifest(name: str, jobscript: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """A job of one pod that runs `jobscript` in `folder`, with the CPUs, memory, time and GPUs it asks for."""
    job = properties(jobscript)
    resources = job["resources"]
    amounts = {"cpu": str(job["threads"]), "memory": f"{resources['mem_mb']}M"}
    if resources.get("gpu"):
        amounts["nvidia.com/gpu"] = str(resources["gpu"])
    container = {
        "name": "job",
        "image": environment["SPECTRALGRU_IMAGE"],
        "command": ["bash", "-c", jobscript],
        "workingDir": str(folder),
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": [{"name": "work", "mountPath": environment.get("SPECTRALGRU_MOUNT", str(folder))}],
    }
    claim = {"claimName": environment["SPECTRALGRU_CLAIM"]}
    pod = {
        "restartPolicy": "Never",  # Snakemake starts failed jobs again
        "terminationGracePeriodSeconds": 60,  # time for a checkpoint
        "containers": [container],
        "volumes": [{"name": "work", "persistentVolumeClaim": claim}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app": "spectralgru", "rule": job["rule"].replace("_", "-")}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 60 * int(resources["runtime"]),
            "ttlSecondsAfterFinished": 86400,
            "template": {"spec": pod},
        },
    }


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Output of `kubectl ARGUMENTS`, given `text` on its standard input."""
    namespace = os.environ.get("SPECTRALGRU_NAMESPACE", "default")
    command = ["kubectl", "--namespace", namespace, *arguments]
    return subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(verb: str, *arguments: str) -> None:
    """Do what Snakemake asks for; see above."""
    if verb == "submit":
        for name in ("SPECTRALGRU_IMAGE", "SPECTRALGRU_CLAIM"):
            if name not in os.environ:
                sys.exit(f"{name} is not set: see docs/clusters.md")
        name = f"spectralgru-{uuid.uuid4().hex[:12]}"
        job = manifest(name, Path(arguments[-1]).read_text(), Path.cwd(), dict(os.environ))
        kubectl("create", "--filename", "-", text=json.dumps(job))
        print(name)
    elif verb == "status":
        state = json.loads(kubectl("get", "job", arguments[0], "--output", "json"))["status"]
        print("success" if state.get("succeeded") else "failed" if state.get("failed") else "running")
    else:
        kubectl("delete", "job", "--ignore-not-found", *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
