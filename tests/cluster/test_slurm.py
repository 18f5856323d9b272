"""The workflow on a real SLURM: same tables as on one machine, GPUs honoured, several nodes by torchrun."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from campaign import ROOT, TABLE, Campaign

pytestmark = pytest.mark.cluster

# One training is split over two processes (torchrun, gloo); the other is not.
SHARED = "train_setting:processes=2 if wildcards.setting == 'constraint-0.2' else 1"
# No accounting: status by squeue. GPUs are imitated by gres, the trainings run on the CPU.
SLURM = [
    *("--profile", str(ROOT / "workflow/profiles/slurm"), "--jobs", "4"),
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
    *("--seconds-between-status-checks", "1", "--default-resources", "slurm_partition=main", "mem_mb=1500"),
    *("runtime=10", "--set-threads", "train_setting=2", "--latency-wait", "10"),
]


def campaign(folder: Path, commands: Path) -> Campaign:
    made = Campaign(folder, constraint=[0.2], clipping=[5.0], seeds=[0], commands=commands)
    made.use_treebank()
    return made


def test_the_workflow_on_slurm_gives_the_tables_of_one_machine(
    slurm: None, tmp_path: Path, commands: Path
) -> None:
    local, cluster = (campaign(tmp_path / name, commands) for name in ("local", "cluster"))
    resources = ("--set-resources", SHARED, "train_setting:mem_mb=2000")
    code, output = local.run("--cores", "2", *resources, "--set-threads", "train_setting=2", "--", TABLE)
    assert code == 0, output
    gpus = "train_setting:gpu=1 if wildcards.setting == 'clipping-5' else 0"
    process = cluster.start(*SLURM, *resources, gpus, "--", TABLE, SPECTRALGRU_DEVICE="cpu")
    requested = set()
    while process.poll() is None:
        queue = subprocess.run(
            ["squeue", "--noheader", "--Format=tres-per-job"], capture_output=True, text=True
        )
        requested |= set(queue.stdout.split())
        time.sleep(1)
    output, _ = process.communicate()
    logs = {p.name: p.read_text() for p in (cluster.folder / "logs").rglob("*.log")}
    assert process.returncode == 0, (output, logs)
    assert cluster.tables() == local.tables()
    assert len(cluster.tables()) == 4
    assert any("gpu" in gres for gres in requested), requested
    assert "GPU 0" in logs["clipping-5.log"]
    assert "GPU" not in logs["constraint-0.2.log"]


def test_a_training_over_two_nodes(slurm: None, tmp_path: Path) -> None:
    """torchrun on each of two nodes through srun, with a rendezvous endpoint, to the result of one process."""
    job = tiny.job("ptb", (tiny.replica("constraint", 1.4, 0, 0.3), tiny.replica("clipping", 1.0, 1, 0.3)))
    folders = [tmp_path / "alone", tmp_path / "nodes"]
    for folder in folders:
        tiny.write_corpora(folder / "data")
    assert tiny.run(tiny.command(job, folders[0])).returncode == 0
    trainer = " ".join(tiny.command(job, folders[1])[1:])
    script = folders[1] / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
        "# Two nodes of one host here: their names are no addresses.\n"
        "address=$(scontrol show node $head | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')\n"
        f"srun {sys.executable} -m torch.distributed.run --nnodes $SLURM_NNODES --nproc-per-node 1 \\\n"
        "  --rdzv-id $SLURM_JOB_ID --rdzv-backend c10d --rdzv-endpoint $address:29400 \\\n"
        f"  {trainer}\n"
    )
    log = folders[1] / "log"
    submit = ["sbatch", "--wait", "--nodes=2", "--ntasks-per-node=1", "--mem=2000", f"--output={log}"]
    result = tiny.run([*submit, str(script)], env=tiny.environment(OMP_NUM_THREADS="1"))
    assert result.returncode == 0, (result.stderr, log.read_text())
    assert log.read_text().count("epoch 1/3") == 1
    expected, found = (tiny.outcome(folder / "results") for folder in folders)
    assert set(found) == set(expected)
    assert len(found) == 8
    for name, value in expected.items():
        if name.endswith("run.json"):
            assert found[name]["best"] == pytest.approx(value["best"], rel=1e-4)


def test_a_preempted_job_goes_on_where_it_was(slurm: None, tmp_path: Path) -> None:
    """scancel --signal=TERM, as on preemption: a checkpoint, exit code 75; submitted again it resumes."""
    job = tiny.job("ptb", (tiny.replica(rate=0.3),), epochs=1000)
    tiny.write_corpora(tmp_path / "data")
    command = ["exec", *tiny.command(job, tmp_path)]
    log = tmp_path / "log"
    submit = ["sbatch", "--parsable", f"--output={log}", "--mem=2000", f"--wrap={' '.join(command)}"]
    number = tiny.run(submit).stdout.strip()
    wait_for_line(log, "epoch 2/")
    tiny.run(["scancel", "--batch", "--signal=TERM", number])
    wait_for_line(log, "checkpoint written")
    shown = ""
    for _ in range(50):
        shown = tiny.run(["scontrol", "show", "job", number]).stdout
        if "ExitCode=75:0" in shown:
            break
        time.sleep(0.2)
    assert "ExitCode=75:0" in shown
    number = tiny.run(submit).stdout.strip()
    try:
        wait_for_line(log, "resumed at epoch")
    finally:
        tiny.run(["scancel", number])


def wait_for_line(log: Path, text: str) -> None:
    until = time.monotonic() + 90
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < until, log.read_text() if log.exists() else "no log"
        time.sleep(0.2)
