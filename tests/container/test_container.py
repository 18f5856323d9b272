"""One recipe, the same environment everywhere: the image, what is in it, and the real workflow run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USER = 1000  # in the image
pytestmark = pytest.mark.container


def results(campaign):
    """Weights and tables, which are to be the same everywhere."""
    paths = [
        *campaign.glob("results/quick/runs/*/*/*/model.safetensors"),
        *campaign.glob("results/quick/tables/table*"),
    ]
    assert len(paths) == 4 + 4
    return {str(path.relative_to(campaign)): path.read_bytes() for path in paths}


def snakemake(campaign, *options, path):
    """Output of this machine's snakemake in the folder of a campaign."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *options]
    environment = os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run(command, cwd=campaign, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(podman, image, new_campaign):
    """A campaign that ran in the image as its own user, without a network."""
    campaign = new_campaign()
    for path in (campaign, *campaign.rglob("*")):
        os.chown(path, USER, USER)
    podman.inside("snakemake", "--cores", "2", mount=campaign)
    return campaign


def test_it_is_not_run_by_root(podman, image, tmp_path):
    assert podman.inside("id", "-u", mount=tmp_path) == f"{USER}\n"
    with pytest.raises(AssertionError, match="Permission denied"):
        podman.inside("touch", "/opt/venv/bin/python", mount=tmp_path)


def test_any_user_may_run_it(podman, image, tmp_path):
    imports = "import matplotlib.pyplot, mlflow, spectralgru.pipeline.cli"
    podman.inside("python", "-c", imports, mount=tmp_path, options=("--user=4321:4321",))


def test_any_user_has_the_compiled_sweeps(podman, image, tmp_path):
    version = "from spectralgru.recurrent import compiled; print(compiled.compiler_version())"
    for options in ((), ("--user=4321:4321",)):
        assert podman.inside("python", "-c", version, mount=tmp_path, options=options)[0].isdigit()


def test_what_is_installed_is_what_is_locked(podman, image, sources):
    podman.inside("pytest", "-p", "no:cacheprovider", "tests/workflow/test_lock.py", mount=sources)


def test_the_unit_tests_pass_inside(podman, image, sources):
    tests = ["gru", "native", "spectral", "params", "corpora_midi", "training_engine", "training_schedule"]
    files = [f"tests/unit/test_{name}.py" for name in tests]
    podman.inside("pytest", "-p", "no:cacheprovider", *files, mount=sources)


def test_the_workflow_runs_inside(finished):
    assert results(finished)
    assert list(finished.glob("results/quick/figures/*.svg"))
    assert (finished / "results/quick/tracking/chorales.json").exists()


def test_the_second_time_nothing_is_done_inside(podman, finished):
    output = podman.inside("sh", "-c", "snakemake --cores 2 2>&1", mount=finished)
    assert "Nothing to be done" in output


def test_through_apptainer_it_gives_the_same(finished, sif, new_campaign):
    image, path = sif
    campaign = new_campaign()
    (campaign / "spectralgru.sif").symlink_to(image)
    options = ("--software-deployment-method", "apptainer", "--apptainer-args", f"--no-privs --bind {image}")
    output = snakemake(campaign, *options, path=path)
    jobs = [
        "prepare_corpus",
        "write_tables",
        "draw_figures",
        "write_claims",
        "write_provenance",
        "write_samples",
        "write_report",
        "write_article",
    ]
    jobs.append("track_runs")
    assert output.count("Activating singularity image") == len(jobs) + 2  # trainings
    assert all(f"Rule: {job}" in output for job in jobs)
    assert results(campaign) == results(finished)


def test_on_this_machine_it_gives_the_same(finished, new_campaign):
    campaign = new_campaign()
    snakemake(campaign, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert results(campaign) == results(finished)


def test_the_same_sources_give_the_same_image(podman, image, sources, build_options, big_folder):
    again = big_folder / "again"
    shutil.copytree(sources, again, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("*.sif"))
    for path in again.rglob("*"):  # another checkout: other dates, another umask
        path.chmod(0o700 if path.is_dir() else 0o600)
    assert podman.make_image(again, "--no-cache", *build_options) == image
