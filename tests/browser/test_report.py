"""The report in a real browser, from disk, without a network; screenshots and the printed page are kept."""

import base64
import json
import os
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlparse

import chromium
import numpy as np
import pytest

from results_records import REPOSITORY, make_experiment
from spectralgru.files import write_json
from spectralgru.pipeline.report import write_report
from spectralgru.pipeline.results.names import KEPT
from spectralgru.pipeline.sampling.audio import to_mp3
from spectralgru.pipeline.sampling.music import Timing, to_midi

pytestmark = chromium.MARKS
RECORD = "2026-11-22-ptb-650"
FLAGS = (
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--autoplay-policy=no-user-gesture-required",
)
A4 = 680  # CSS pixels between the margins
OVERFLOW = "const d = document.documentElement; return d.scrollWidth - d.clientWidth"
# Elements that stick out of the page and of no box that scrolls.
STICKING_OUT = """
return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre')
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40));
"""
# Least contrast (WCAG 2) of a text against the nearest background behind it.
CONTRAST = """
const parse = c => c.match(/[\\d.]+/g).map(Number);
const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
let least = [99, ''];
for (const e of document.querySelectorAll('body *')) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
  let b = e, back;
  do { back = parse(getComputedStyle(b).backgroundColor); b = b.parentElement } while (b && back[3] === 0);
  if (back[3] === 0) back = [255, 255, 255];
  const [x, y] = [light(parse(getComputedStyle(e).color)), light(back)].sort((a, b) => b - a);
  const ratio = (x + 0.05) / (y + 0.05);
  if (ratio < least[0]) least = [ratio, e.textContent.slice(0, 40)];
}
return least;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, results: Path) -> Path:
    folder = tmp_path_factory.mktemp("report")
    root = shutil.copytree(results.parents[1], folder, dirs_exist_ok=True) / "results" / "quick"
    make_experiment(root / "experiments" / "learning_rate")
    make_sample(root / "samples")
    shutil.copytree(REPOSITORY / KEPT / RECORD, root.parents[1] / KEPT / RECORD)
    return write_report(root)


def make_sample(folder: Path) -> None:
    """A scale of 16 eighths at 96 quarter notes a minute."""
    folder.mkdir()
    scale = np.eye(16, 93, k=50, dtype=np.uint8)
    (folder / "scale.mp3").write_bytes(to_mp3(to_midi(scale, 1, Timing(240, 96), "scale")))
    sounds = [{"text": "A scale", "href": "scale.mp3"}]
    write_json(
        folder / "summary.json",
        {"title": "Continuations", "answer": [], "tables": [], "figures": [], "sounds": sounds},
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    logs = {"performance": "ALL", "browser": "ALL"}
    driver = chromium.start(tmp_path_factory.mktemp("profile"), *FLAGS, logs=logs)
    yield driver
    driver.quit()


def show(browser, page: Path, width: int, dark: bool = False, media: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    browser.get(page.as_uri())
    browser.execute_script("return Promise.all([...document.images].map(i => i.decode()))")


def keep(browser, name: str) -> None:
    folder = Path(os.environ.get("CI_ARTIFACTS", "results")) / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    (folder / f"report-{name}.png").write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.parametrize(
    ("name", "width", "media"), [("wide", 1280, ""), ("phone", 360, ""), ("print", A4, "print")]
)
def test_nothing_sticks_out(browser, page: Path, name: str, width: int, media: str):
    show(browser, page, width, media=media)
    keep(browser, name)
    assert browser.execute_script(OVERFLOW) <= 0
    assert browser.execute_script(STICKING_OUT) == []


def test_on_a_phone_tables_and_figures_scroll_in_boxes_of_their_own(browser, page: Path):
    show(browser, page, 360)
    boxes = "return [...document.querySelectorAll('.scroll')].map(b => b.scrollWidth > b.clientWidth)"
    found = browser.execute_script(boxes)
    # Of the first screen, the claims, the scale, the experiment, the kept campaign.
    assert len(found) == 1 + 1 + (2 + 1 + 1) + (12 + 1 + 1)
    assert all(found)
    sizes = (
        "return [...document.querySelectorAll('main *')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(browser.execute_script(sizes)) >= 12


def test_on_paper_tables_and_figures_are_whole(browser, page: Path):
    show(browser, page, A4, media="print")
    wide = f"return [...document.querySelectorAll('table, img')].filter(e => e.getBoundingClientRect().right > {A4})"
    assert browser.execute_script(f"{wide}.length") == 0


def test_it_asks_for_nothing_and_complains_of_nothing(browser, page: Path):
    browser.get_log("performance")
    show(browser, page, 1280)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert page.as_uri() in asked
    assert {urlparse(url).scheme for url in asked} <= {"file", "data"}
    assert browser.get_log("browser") == []


def test_a_sample_plays(browser, page: Path):
    show(browser, page, 1280)
    browser.set_script_timeout(20)
    duration, heard = browser.execute_async_script("""
        const done = arguments[0], audio = document.querySelector('audio');
        audio.ontimeupdate = () => audio.currentTime > 0.2 && done([audio.duration, audio.currentTime]);
        audio.onerror = () => done([0, 0]);
        audio.play();
    """)
    assert duration == pytest.approx(16 * 60 / 96 / 2 + 1, abs=0.1)
    assert heard > 0.2


def test_every_image_is_drawn(browser, page: Path):
    show(browser, page, 1280)
    sizes = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(sizes) == 14
    assert min(sizes) > 300


def test_every_link_works_in_a_page_that_travels_alone(browser, page: Path, tmp_path: Path):
    show(browser, Path(shutil.copy(page, tmp_path)), 1280)
    links = browser.execute_script(
        "return [...document.links].map(a => [a.getAttribute('href'), a.download])"
    )
    assert len(links) > 15
    for link, name in links:
        if link.startswith("#"):
            assert browser.execute_script("return !!document.getElementById(arguments[0])", link[1:]), link
        else:
            assert link.startswith("data:")
            assert name
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    browser.execute_script("document.querySelector('a[download=\"table1.csv\"]').click()")
    saved, deadline = tmp_path / "table1.csv", time.monotonic() + 10
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert saved.read_bytes() == (page.parent / "tables" / "table1.csv").read_bytes()


def test_the_first_screen_answers(browser, page: Path):
    show(browser, page, 1400)
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('#answer h3, #answer img, #answer table')].map(e => {"
        "const b = e.getBoundingClientRect(); return [e.tagName, b.left, b.bottom] })"
    )
    assert [tag for tag, _, _ in boxes] == ["H3", "H3", "H3", "IMG", "TABLE"]
    assert all(bottom <= 900 for _, _, bottom in boxes)
    assert min(left for tag, left, _ in boxes if tag != "H3") > 650  # the second column


def test_on_a_phone_the_names_of_rows_stay(browser, page: Path):
    show(browser, page, 360)
    for column in (1, 2):
        moved = browser.execute_script(
            "const cell = document.querySelector(`#tables tbody th:nth-child(${arguments[0]})`);"
            "const before = cell.getBoundingClientRect().left; cell.closest('.scroll').scrollLeft = 200;"
            "return cell.getBoundingClientRect().left - before",
            column,
        )
        assert abs(moved) < 1
        browser.execute_script("document.querySelector('#tables .scroll').scrollLeft = 0")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_is_legible(browser, page: Path, dark: bool):
    show(browser, page, 1280, dark)
    if dark:
        keep(browser, "dark")
    ratio, text = browser.execute_script(CONTRAST)
    assert ratio >= 4.5, text


def test_it_can_be_read_without_seeing_it(browser, page: Path):
    show(browser, page, 1280)
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert browser.execute_script("return [...document.images].every(i => i.alt)")
    assert browser.execute_script("return document.querySelector('th:not([scope]):not([colspan])')") is None
    assert browser.execute_script("return document.documentElement.lang") == "en"


def test_it_prints(browser, page: Path):
    show(browser, page, 1280)
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    folder = Path(os.environ.get("CI_ARTIFACTS", "results")) / "screenshots"
    (folder / "report.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF")
    assert 6 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 25
