"""Provenance for machines: `results/<scale>` as a Workflow Run RO-Crate 0.5.

https://w3id.org/ro/wfrun/workflow/0.5: WorkflowHub and RO-Crate tools read it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
MIT = "https://spdx.org/licenses/MIT"
FORMATS = {
    "csv": "text/csv",
    "md": "text/markdown",
    "html": "text/html",
    "tex": "application/x-tex",
    "json": "application/json",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
}


def crate(record: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-LD of a provenance record: an action for each training, and one for all artifacts."""
    made, runs, scale = _Crate(version="1.1"), record["runs"], record["scale"]
    made.metadata.extra_contexts.append(TERMS)
    begin, end = min(run["started"] for run in runs.values()), max(map(_end, runs.values()))
    made.describe(scale, end[:10])
    corpora = {name: made.corpus(name, about) for name, about in record["data"].items()}
    files = [made.artifact(path, about, corpora) for path, about in record["artifacts"].items()]
    parameters = made.file("params.yaml", "Parameters", "application/yaml")
    trainings = [made.training(path, run, parameters, corpora) for path, run in runs.items()]
    run = made.context(
        "#workflow-run",
        "CreateAction",
        name=f"Snakemake run at scale {scale}",
        description="Corpora prepared, settings trained, tables and figures made",
        instrument=made.mainEntity,
        startTime=begin,
        endTime=end,
        object=[parameters, *corpora.values()],
        result=[*files, *(training["result"] for training in trainings)],
    )
    made.file("provenance.json", "The same provenance, with the hash of every file", about=run)
    made.file("provenance.html", "The same provenance, as a page", about=run)
    made.root_dataset["mentions"] = [run, *trainings]
    graph: dict[str, Any] = made.metadata.generate()
    return graph


class _Crate(ROCrate):  # type: ignore[misc]
    """The entities of this project's crates."""

    def context(self, name: str, kind: str, /, **properties: Any) -> ContextEntity:
        return self.add(ContextEntity(self, name, {"@type": kind, **properties}))

    def file(self, path: str, name: str, kind: str | None = None, **properties: Any) -> Any:
        properties |= {"name": name, "encodingFormat": kind or FORMATS[path.rpartition(".")[2]]}
        return self.add_file(dest_path=path, properties=properties)

    def describe(self, scale: str, date: str) -> None:
        """The root, and the workflow with its language."""
        licence = self.context(MIT, "CreativeWork", name="MIT License", identifier=MIT)
        about = {
            "name": f"spectralgru, {scale} scale: runs, tables and figures",
            "description": "GRUs trained by spectral constraint and by gradient clipping, and what came of them",
            "datePublished": date,
            "license": licence,
            "author": self.context("#developers", "Organization", name="The spectralgru developers"),
            "conformsTo": [
                self.context(url, "CreativeWork", name=name, version=version)
                for url, (name, version) in PROFILES.items()
            ],
        }
        for name, value in about.items():
            self.root_dataset[name] = value
        about = {"name": "Snakefile", "description": "Corpora -> training -> tables and figures"}
        about |= {"encodingFormat": "text/x-python", "license": licence}
        self.add_workflow(dest_path="Snakefile", main=True, lang="snakemake", properties=about)

    def corpus(self, name: str, about: Mapping[str, Any]) -> ContextEntity:
        sources = (f"{f} (SHA-256 {raw['sha256']}) from {raw['source']}" for f, raw in about["raw"].items())
        return self.context(
            f"#data-{name}",
            "CreativeWork",
            name=f"Prepared corpus {name}",
            identifier=f"sha256:{about['sha256']}",
            description=f"Made from {'; '.join(sources)}",
            conditionsOfAccess=about["licence"],
        )

    def artifact(self, path: str, about: Mapping[str, Any], corpora: Mapping[str, ContextEntity]) -> Any:
        shown = _one(corpora[corpus] for corpus in about["corpora"])
        return self.file(path, Path(path).stem, sha256=about["sha256"], about=shown)

    def training(
        self, path: str, run: Mapping[str, Any], parameters: Any, corpora: Mapping[str, ContextEntity]
    ) -> ContextEntity:
        _, corpus, setting, seed = path.split("/")
        software = run["git_commit"] or run["versions"].get("spectralgru", "unknown")
        about = {
            "name": f"{corpus} {setting} {seed}",
            "description": f"A training that {run['status']}: record, history, trace and weights",
            "identifier": run["key"],
        }
        return self.context(
            f"#train-{path}",
            "CreateAction",
            name=f"Training of {corpus} {setting} {seed}",
            description=f"On {run['host']} ({run['device']}), {run['threads']} threads",
            instrument=self.context(
                f"#spectralgru-{software}",
                "SoftwareApplication",
                name="spectralgru train",
                softwareVersion=software,
                softwareRequirements=" ".join(f"{n}=={v}" for n, v in sorted(run["versions"].items())),
            ),
            startTime=run["started"],
            endTime=_end(run),
            actionStatus="http://schema.org/CompletedActionStatus",
            object=[parameters, corpora[corpus]],
            result=self.add_dataset(dest_path=path, properties=about),
        )


def _end(run: Mapping[str, Any]) -> str:
    end = datetime.fromisoformat(run["started"]) + timedelta(seconds=run["wall_seconds"])
    return end.isoformat(timespec="seconds")


def _one(entities: Iterable[Any]) -> Any:
    """The entities as a list, or a single one as it is, as RO-Crate requires."""
    listed = list(entities)
    return listed[0] if len(listed) == 1 else listed
