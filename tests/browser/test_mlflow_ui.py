"""The MLflow server on really trained runs, looked at with a real browser; screenshots are kept."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest

import tiny
from servers import Server
from spectralgru.pipeline.results.figures import write_figures
from spectralgru.pipeline.results.load import Campaign
from spectralgru.pipeline.sampling.audio import to_mp3
from spectralgru.pipeline.sampling.music import Timing, to_midi
from spectralgru.pipeline.tracking import open_store, track
from spectralgru.setting import Setting
from spectralgru.training.train import train

pytestmark = chromium.MARKS
SETTINGS = [Setting("constraint", 0.2), Setting("constraint", 1.8), Setting("none")]
EPOCHS = 5
MODE = "workflowType=machine_learning"
# Number of points of every curve drawn.
POINTS = """
const plots = Array.from(document.querySelectorAll('.js-plotly-plot'));
return plots.flatMap(plot => (plot.data || []).map(curve => (curve.y || []).length));
"""
# Length of the sound of the player, which is in a shadow tree.
DURATION = """
const deep = root => [...root.querySelectorAll('*')].flatMap(e => [e, ...(e.shadowRoot ? deep(e.shadowRoot) : [])]);
return deep(document).find(e => e.tagName === 'AUDIO')?.duration;
"""
PATIENCE = 60  # seconds for a page


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tracked")
    tiny.write_corpora(folder)
    replicas = tuple(tiny.replica(method, value, seed, 0.3) for method, value in SETTINGS for seed in (0, 1))
    job = tiny.job("ptb", replicas, epochs=EPOCHS)
    root = folder / "results" / job.scale
    train(job, folder / "prepared" / "ptb.npz", root, folder / "checkpoints")
    figures = write_figures(Campaign.load(root, {"ptb": SETTINGS}, (0, 1), job.scale))
    uri = f"sqlite:///{folder}/mlflow.db"
    tune = folder / "ptb-tune.mp3"
    tune.write_bytes(to_mp3(to_midi(np.eye(12, 93, k=50, dtype=np.uint8), 1, Timing(240, 96), "a scale")))
    shown = [tune, *(figure for figure in figures if figure.suffix == ".svg")]
    track(root, sorted(root.glob("runs/*/*/seed-*")), uri, shown, data=folder)
    return uri


@pytest.fixture(scope="module")
def server(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(store, tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def address(server: Server) -> str:
    return server.url


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    driver = chromium.start(tmp_path_factory.mktemp("profile"), "--window-size=1500,1700")
    yield driver
    driver.quit()


def visit(browser, page: str) -> None:
    """Load a page anew: MLflow does not follow every change of what stands behind #."""
    browser.get("about:blank")
    browser.get(page)


def wait_for(browser, found, what: str):
    """The first true answer of `found(browser)`, else fail saying what is missing and what is there instead."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := found(browser):
            return answer
        time.sleep(0.3)
    keep(browser, "failed")
    raise AssertionError(
        f"{what} not shown after {PATIENCE} s; the page {browser.current_url} says:\n{text_of(browser)}"
    )


def text_of(browser) -> str:
    return browser.execute_script("return document.body.innerText")


def keep(browser, name: str) -> None:
    folder = Path(os.environ.get("CI_ARTIFACTS", "results")) / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(folder / f"mlflow-{name}.png"))


def find_run(store: str, name: str):
    client = open_store(store)
    experiment = client.get_experiment_by_name("spectralgru/quick/ptb").experiment_id
    return next(run for run in client.search_runs([experiment]) if run.info.run_name == name).info


def test_experiments_and_their_runs_are_listed(browser, server: Server, address: str, store: str):
    visit(browser, server.page)
    wait_for(browser, lambda b: "spectralgru/quick/ptb" in text_of(b), "the experiment")
    keep(browser, "experiments")
    info = find_run(store, "none")
    visit(browser, f"{address}/#/experiments/{info.experiment_id}/runs?{MODE}")
    wait_for(browser, lambda b: {"constraint-0.2", "none"} <= set(text_of(b).splitlines()), "the settings")
    keep(browser, "runs")


def test_an_experiment_opens_as_training_with_what_is_asked_first(browser, server: Server):
    visit(browser, server.page)
    name = "spectralgru/quick/ptb"
    wait_for(browser, lambda b: b.find_elements("link text", name), "the experiment")[0].click()
    wait_for(browser, lambda b: "constraint-0.2" in text_of(b), "the settings")
    columns = {"method", "value", "best_valid", "status"}
    wait_for(browser, lambda b: columns <= set(text_of(b).splitlines()), "the columns")
    assert {"constraint", "1.8", "2 finished"} <= set(text_of(browser).splitlines())
    assert "Ask questions about your experiments" not in text_of(browser)
    keep(browser, "columns")


def test_two_settings_are_compared_by_their_validation_curves(browser, address: str, store: str):
    """As a person does: tick two settings, press Compare, choose the metric."""
    settings = ("constraint-0.2", "constraint-1.8")
    chosen = [find_run(store, name) for name in settings]
    visit(browser, f"{address}/#/experiments/{chosen[0].experiment_id}/runs?{MODE}")
    for info in chosen:
        box = f"[row-id='{info.run_id}'] input[aria-label^='Press Space']"
        wait_for(browser, lambda b, box=box: b.find_elements("css selector", box), "the setting")[0].click()
    compare = "//button[normalize-space()='Compare']"
    wait_for(browser, lambda b: b.find_elements("xpath", compare), "the button Compare")[0].click()
    wait_for(browser, lambda b: "Comparing 2 Runs" in text_of(b), "the comparison")
    metric = wait_for(browser, lambda b: b.find_elements("link text", "epoch/valid_metric"), "the metric")
    for word in ("delta", "0.2", "1.8", "model.hidden_size"):
        assert word in text_of(browser)
    keep(browser, "comparison")
    metric[0].click()
    wait_for(browser, lambda b: b.execute_script(POINTS).count(EPOCHS) >= len(settings), "two curves")
    shown = text_of(browser)
    for name in settings:
        assert f"{name} (epoch/valid_metric)" in shown
    keep(browser, "validation_curves")


def test_all_settings_share_a_chart(browser, address: str, store: str):
    info = find_run(store, "none")
    visit(browser, f"{address}/#/experiments/{info.experiment_id}/runs?{MODE}&compareRunsMode=CHART")
    curves = len(SETTINGS)
    wait_for(browser, lambda b: b.execute_script(POINTS).count(EPOCHS) >= curves, f"{curves} curves")
    assert {"epoch/valid_metric", "success"} <= set(text_of(browser).splitlines())
    keep(browser, "charts")


def test_a_registered_model_tells_where_it_comes_from(browser, address: str, store: str):
    name = "spectralgru-quick-ptb"
    version = open_store(store).get_model_version_by_alias(name, "best")
    source = open_store(store).get_run(version.run_id)
    visit(browser, f"{address}/#/models?{MODE}")
    wait_for(browser, lambda b: name in text_of(b), "the model")
    for close in browser.find_elements("css selector", "[role=dialog] [aria-label=Close]"):
        close.click()  # what is new in MLflow, told once
    keep(browser, "models")
    visit(browser, f"{address}/#/models/{name}/versions/{version.version}?{MODE}")
    wait_for(browser, lambda b: source.info.run_name in text_of(b), "the run it comes from")
    shown = text_of(browser)
    assert "best" in shown
    assert f"validation perplexity {source.data.metrics['best_valid']:.5g}" in shown
    for title in ("Inputs (1)", "Outputs (4)"):
        browser.find_element("xpath", f"//*[text()='{title}']").click()
    wait_for(browser, lambda b: "next_word" in text_of(b), "the signature")
    keep(browser, "model")


def test_a_run_shows_its_curves(browser, address: str, store: str):
    info = find_run(store, "constraint-0.2 seed 0")
    visit(browser, f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}/model-metrics?{MODE}")
    wait_for(browser, lambda b: "valid_loss" in text_of(b), "the metric valid_loss")
    wait_for(browser, lambda b: EPOCHS in b.execute_script(POINTS), f"a curve of {EPOCHS} points")
    keep(browser, "curves")


def test_a_figure_is_shown_as_artifact(browser, address: str, store: str):
    info = find_run(store, "results")
    page = (
        f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/ptb-trajectory.svg?{MODE}"
    )
    visit(browser, page)
    size = "const i = document.querySelector('img[src^=blob], img[src*=artifact]'); return i ? i.naturalWidth : 0"
    wait_for(browser, lambda b: "ptb-learning_curves.svg" in text_of(b), "the list of figures")
    wait_for(browser, lambda b: b.execute_script(size) > 100, "the figure")
    keep(browser, "figure")


def test_a_sound_is_played(browser, address: str, store: str):
    info = find_run(store, "results")
    visit(
        browser,
        f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/ptb-tune.mp3?{MODE}",
    )
    duration = wait_for(browser, lambda b: b.execute_script(DURATION), "the player")
    assert duration == pytest.approx(12 * 60 / 96 / 2 + 1, abs=0.1)
    keep(browser, "sound")
