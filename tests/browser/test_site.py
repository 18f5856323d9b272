"""The site as `make docs` builds it: from its folder, without server or network; every link leads somewhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import chromium
import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "benchmarks",
    "config",
    "docs",
    "params.yaml",
    "reproduction",
)
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,1000")
# The box of the search is in a shadow tree, as are its results.
OPENED = """
if (!document.activeElement.shadowRoot) document.querySelector(".md-search__button").click();
return document.activeElement.shadowRoot !== null;
"""
LINKS = """
const links = root => [...root.querySelectorAll("*")].flatMap(e =>
  [...(e.href && e.href.includes("?h=") ? [e.href] : []), ...(e.shadowRoot ? links(e.shadowRoot) : [])]);
return links(document);
"""


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make docs` in a folder like the project's, without installing."""
    for name in (*PAGES, "Makefile", "src"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "zensical.toml", folder)  # the tool works where the file is, not where a link to it is
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["make", "--old-file=setup", "docs"],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": f"{ROOT}/src"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


class _Links(HTMLParser):
    """Where a page leads, what it loads, and the places that links can name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.places |= {value for name in ("id", "name") if (value := values.get(name))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        if tag in ("img", "script", "link", "iframe") and values.get("rel") not in (
            "canonical",
            "next",
            "prev",
        ):
            self.loaded += [value for name in ("src", "href") if (value := values.get(name))]


def test_every_link_leads_somewhere_and_nothing_is_fetched(site):
    pages = {path: _Links(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 30
    lost = []
    for path, page in pages.items():
        if "reproduction" in path.parts and path.name != "index.html":
            continue  # a table of a record, as it was written
        lost += [f"{path.relative_to(site)} loads {link}" for link in page.loaded if urlparse(link).scheme]
        for link in page.links + page.loaded:
            address, fragment = urldefrag(link)
            target = (path.parent / unquote(address)).resolve() if address else path
            if not urlparse(link).scheme and (
                not target.is_file() or (fragment and unquote(fragment) not in pages[target].places)
            ):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert not lost


def test_links_that_lead_nowhere_are_errors(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in (ROOT / "docs").iterdir():
        if page.name != "library.md":
            (tmp_path / "docs" / page.name).symlink_to(page)
    (tmp_path / "docs/library.md").write_text("# Library\n\n[Lost](nowhere.md), [lost](method.md#nowhere)\n")
    done = build(tmp_path)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 2
    assert "page does not exist" in said
    assert "anchor does not exist" in said


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    driver = chromium.start(tmp_path_factory.mktemp("profile"), *OFFLINE, logs={"browser": "ALL"})
    yield driver
    driver.quit()


def wait(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 20).until(condition)


@pytest.mark.browser
@chromium.MARKS[1]
def test_every_part_of_the_menu_opens_a_page(site, browser):
    home = (site / "index.html").as_uri()
    browser.get(home)
    parts = [tab.text for tab in browser.find_elements("css selector", ".md-tabs__link")]
    assert parts[:2] == ["Home", "Start"]
    for part in parts[1:]:
        browser.get(home)
        browser.find_element("link text", part).click()
        wait(browser, lambda b: b.current_url != home)
        assert browser.find_element("css selector", "article h1").text
        assert browser.find_element("css selector", ".md-tabs__item--active").text == part


@pytest.mark.browser
@chromium.MARKS[1]
@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("candidate bias", "docs/exploding.html"),
        ("slurm account", "docs/howto/slurm.html"),
        ("clip_singular_values", "docs/reference.html"),
    ],
)
def test_search_finds(site, browser, words, page):
    browser.get((site / "docs/glossary.html").as_uri())
    wait(browser, lambda b: b.execute_script(OPENED))
    browser.switch_to.active_element.send_keys(words)
    found = wait(browser, lambda b: [link for link in b.execute_script(LINKS) if f"/{page}" in link])
    browser.get(found[0])
    assert words.split()[0] in browser.find_element("css selector", "article").text.lower()
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
