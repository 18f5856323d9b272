"""What a stranger meets first: workflows, forms, hooks, citation; each is valid and says the same as the others."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CODEMETA = json.loads((ROOT / "codemeta.json").read_text())
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))


def test_workflows_are_valid(tmp_path):
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    done = subprocess.run(["actionlint", *workflows], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "ci.yml"
    broken.write_text(workflows[0].read_text().replace("matrix.python", "matrix.pyhton"))
    assert subprocess.run(["actionlint", broken], capture_output=True).returncode == 1


def test_every_python_that_is_promised_is_tested():
    tested = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"][
        "matrix"
    ]
    promised = [text.rsplit(" ")[-1] for text in PROJECT["classifiers"] if re.search(r"3\.\d+$", text)]
    assert tested["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_the_version_is_the_same_everywhere():
    newest = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"version = \{(.*?)\}", (ROOT / "docs/howto/cite.md").read_text())
    version = PROJECT["version"]
    assert {newest[1], cited[1], CITATION["version"], CODEMETA["version"]} == {version}
    assert {newest[2], CITATION["date-released"], CODEMETA["dateModified"]} == {newest[2]}


def test_citation_and_codemeta_say_what_the_project_says():
    assert CITATION["keywords"] == CODEMETA["keywords"] == PROJECT["keywords"]
    assert CODEMETA["description"] == CITATION["abstract"]
    assert CODEMETA["softwareRequirements"] == [
        text.replace(">=", " >= ") for text in PROJECT["dependencies"]
    ]
    paper = CITATION["preferred-citation"]
    assert CODEMETA["referencePublication"]["name"] == paper["title"]
    assert [a["familyName"] for a in CODEMETA["referencePublication"]["author"]] == [
        a["family-names"] for a in paper["authors"]
    ]


def test_hooks_run_tools_of_the_environment():
    config = ROOT / ".pre-commit-config.yaml"
    subprocess.run(["pre-commit", "validate-config", config], check=True)
    for hook in yaml.safe_load(config.read_text())["repos"][0]["hooks"]:
        assert shutil.which(Path(hook["entry"].split()[0]).name), hook["id"]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_forms_ask_something(form):
    content = yaml.safe_load(form.read_text())
    assert content["name"]
    assert content["description"]
    asked = [field for field in content["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked)
    assert any(field.get("validations", {}).get("required") for field in asked)
    for field in asked:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert field["attributes"]["label"]


def test_the_devcontainer_sets_up_what_make_does():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"].startswith("make setup")
