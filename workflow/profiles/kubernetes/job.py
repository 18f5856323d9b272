"""Kubernetes jobs for Snakemake's generic cluster executor, through kubectl.

    job.py submit JOBSCRIPT    print the name of the job made from it
    job.py status NAME         print running, success or failed
    job.py cancel NAME...      delete the jobs

Pods run as the user who submits, without the cluster's service token. A cluster that does not answer is asked again.
A job that cannot be seen is taken to be running; one that is gone has failed, and Snakemake starts it again.

SPECTRALGRU_IMAGE names the container image, SPECTRALGRU_CLAIM the volume claim mounted where this folder lies
(SPECTRALGRU_MOUNT, default: the folder itself), SPECTRALGRU_NAMESPACE the namespace.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

MARK = "# properties = "
PAUSES = (1, 2, 4, 8)  # seconds between tries
# Process 1 of a container is sent SIGTERM alone, and ignores it by default. This one hands it on to all that it started
# and waits until the last of them has ended, its checkpoint written.
FIRST_PROCESS = """
trap 'kill -TERM -- -$!' TERM
set -m
bash -c "$1" &
script=$!
set +m
while wait $script; code=$?; kill -0 $script 2>/dev/null; do :; done
trap '' TERM
while kill -0 -- -$script 2>/dev/null; do sleep 0.1; done
exit $code
"""


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
        "command": ["bash", "-c", FIRST_PROCESS, "job", jobscript],
        "workingDir": str(folder),
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": [{"name": "work", "mountPath": environment.get("SPECTRALGRU_MOUNT", str(folder))}],
    }
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsUser": os.getuid(), "runAsGroup": os.getgid(), "runAsNonRoot": os.getuid() != 0}
    claim = {"claimName": environment["SPECTRALGRU_CLAIM"]}
    pod = {
        "restartPolicy": "Never",  # Snakemake starts failed jobs again
        "terminationGracePeriodSeconds": 60,  # time for a checkpoint
        "automountServiceAccountToken": False,
        "securityContext": user | {"seccompProfile": {"type": "RuntimeDefault"}},
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


def kubectl(*arguments: str, text: str = "") -> str | None:
    """Output of `kubectl ARGUMENTS`, given `text` on its standard input; None when every try has failed."""
    namespace = os.environ.get("SPECTRALGRU_NAMESPACE", "default")
    command = ["kubectl", "--namespace", namespace, "--request-timeout", "30s", *arguments]
    for pause in (*PAUSES, 0):
        try:
            answer = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            sys.exit("kubectl is not installed: see docs/clusters.md")
        if answer.returncode == 0:
            return answer.stdout
        time.sleep(pause)
    return None


def status(name: str) -> str:
    """Whether the job is running, or ended in success or failed."""
    answer = kubectl("get", "job", name, "--ignore-not-found", "--output", "json")
    if answer is None:
        print(f"job {name}: the cluster does not answer, asking again later", file=sys.stderr)
        return "running"
    if not answer.strip():
        print(f"job {name}: not there any more", file=sys.stderr)
        return "failed"
    state = json.loads(answer).get("status", {})
    ends = {c["type"] for c in state.get("conditions") or () if c["status"] == "True"}
    if state.get("succeeded") or "Complete" in ends:
        return "success"
    return "failed" if state.get("failed") or "Failed" in ends else "running"


def main(verb: str, *arguments: str) -> None:
    """Do what Snakemake asks for; see above."""
    if verb == "submit":
        for name in ("SPECTRALGRU_IMAGE", "SPECTRALGRU_CLAIM"):
            if name not in os.environ:
                sys.exit(f"{name} is not set: see docs/clusters.md")
        name = f"spectralgru-{uuid.uuid4().hex[:12]}"
        job = manifest(name, Path(arguments[-1]).read_text(), Path.cwd(), dict(os.environ))
        # `apply`, not `create`: a try whose answer was lost may have made the job.
        if kubectl("apply", "--filename", "-", text=json.dumps(job)) is None:
            sys.exit(f"job {name}: not accepted, see above")
        print(name)
    elif verb == "status":
        print(status(arguments[0]))
    elif kubectl("delete", "job", "--ignore-not-found", "--wait=false", *arguments) is None:
        sys.exit(f"jobs {', '.join(arguments)}: not deleted, see above")


if __name__ == "__main__":
    main(*sys.argv[1:])
