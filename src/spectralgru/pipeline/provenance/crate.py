"""Provenance for machines: `results/<scale>` as a Workflow Run RO-Crate 0.5.

https://w3id.org/ro/wfrun/workflow/0.5, which WorkflowHub and the RO-Crate tools read.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Entity = dict[str, Any]

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
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


def crate(record: Mapping[str, Any]) -> Entity:
    """JSON-LD of a provenance record (`provenance.collect`): one action for each training and one for all artifacts."""
    runs, artifacts, data = record["runs"], record["artifacts"], record["data"]
    ends = [_end(run) for run in runs.values()]
    parts = [
        "Snakefile",
        "params.yaml",
        "provenance.json",
        "provenance.html",
        *artifacts,
        *(f"{p}/" for p in runs),
    ]
    workflow_run: Entity = {
        "@id": "#workflow-run",
        "@type": "CreateAction",
        "name": f"Snakemake run at scale {record['scale']}",
        "description": "Corpora prepared, settings trained, tables and figures made",
        "instrument": _ref("Snakefile"),
        "startTime": min(run["started"] for run in runs.values()),
        "endTime": max(ends),
        "object": _refs(["params.yaml", *(f"#data-{corpus}" for corpus in data)]),
        "result": _refs([*artifacts, *(f"{p}/" for p in runs)]),
    }
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"spectralgru, {record['scale']} scale: runs, tables and figures",
        "description": "GRUs trained by spectral constraint and by gradient clipping, and what came of them",
        "datePublished": max(ends)[:10],
        "license": _ref(MIT),
        "author": _ref("#developers"),
        "conformsTo": _refs(PROFILES),
        "hasPart": _refs(parts),
        "mainEntity": _ref("Snakefile"),
        "mentions": _refs(["#workflow-run", *(f"#train-{p}" for p in runs)]),
    }
    return {
        "@context": [
            "https://w3id.org/ro/crate/1.1/context",
            "https://w3id.org/ro/terms/workflow-run/context",
        ],
        "@graph": [
            {
                "@id": "ro-crate-metadata.json",
                "@type": "CreativeWork",
                "about": _ref("./"),
                "conformsTo": _refs(["https://w3id.org/ro/crate/1.1", list(PROFILES)[-1]]),
            },
            root,
            *(
                {"@id": url, "@type": "CreativeWork", "name": n, "version": v}
                for url, (n, v) in PROFILES.items()
            ),
            {"@id": MIT, "@type": "CreativeWork", "name": "MIT License", "identifier": MIT},
            {"@id": "#developers", "@type": "Organization", "name": "The spectralgru developers"},
            *_workflow(),
            workflow_run,
            *(_corpus(name, about) for name, about in data.items()),
            *(_file(path, about) for path, about in artifacts.items()),
            *_software(runs),
            *(entity for path, run in runs.items() for entity in _training(path, run)),
        ],
    }


def _workflow() -> list[Entity]:
    return [
        {
            "@id": "Snakefile",
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
            "name": "Snakefile",
            "description": "Corpora -> training -> tables and figures",
            "encodingFormat": "text/x-python",
            "programmingLanguage": _ref(SNAKEMAKE),
            "license": _ref(MIT),
        },
        {
            "@id": SNAKEMAKE,
            "@type": "ComputerLanguage",
            "name": "Snakemake",
            "identifier": "https://doi.org/10.1093/bioinformatics/bts480",
            "url": "https://snakemake.readthedocs.io",
        },
        {"@id": "params.yaml", "@type": "File", "name": "Parameters", "encodingFormat": "application/yaml"},
        {
            "@id": "provenance.json",
            "@type": "File",
            "name": "The same provenance, with the hash of every file",
            "encodingFormat": "application/json",
            "about": _ref("#workflow-run"),
        },
        {
            "@id": "provenance.html",
            "@type": "File",
            "name": "The same provenance, as a page",
            "encodingFormat": "text/html",
            "about": _ref("#workflow-run"),
        },
    ]


def _corpus(name: str, about: Mapping[str, Any]) -> Entity:
    sources = "; ".join(
        f"{file} (SHA-256 {raw['sha256']}) from {raw['source']}" for file, raw in about["raw"].items()
    )
    return {
        "@id": f"#data-{name}",
        "@type": "CreativeWork",
        "name": f"Prepared corpus {name}",
        "identifier": f"sha256:{about['sha256']}",
        "description": f"Made from {sources}",
        "conditionsOfAccess": about["licence"],
    }


def _file(path: str, about: Mapping[str, Any]) -> Entity:
    return {
        "@id": path,
        "@type": "File",
        "name": Path(path).stem,
        "encodingFormat": FORMATS[path.rpartition(".")[2]],
        "sha256": about["sha256"],
        "about": _refs(f"#data-{corpus}" for corpus in about["corpora"]),
    }


def _software(runs: Mapping[str, Mapping[str, Any]]) -> list[Entity]:
    software = {_software_id(run): run for run in runs.values()}
    return [
        {
            "@id": name,
            "@type": "SoftwareApplication",
            "name": "spectralgru train",
            "softwareVersion": run["git_commit"] or run["versions"].get("spectralgru", "unknown"),
            "softwareRequirements": " ".join(f"{n}=={v}" for n, v in sorted(run["versions"].items())),
        }
        for name, run in software.items()
    ]


def _training(path: str, run: Mapping[str, Any]) -> list[Entity]:
    _, corpus, setting, seed = path.split("/")
    return [
        {
            "@id": f"{path}/",
            "@type": "Dataset",
            "name": f"{corpus} {setting} {seed}",
            "description": f"A training that {run['status']}: record, history, trace and weights",
            "identifier": run["key"],
        },
        {
            "@id": f"#train-{path}",
            "@type": "CreateAction",
            "name": f"Training of {corpus} {setting} {seed}",
            "description": f"On {run['host']} ({run['device']}), {run['threads']} threads",
            "instrument": _ref(_software_id(run)),
            "startTime": run["started"],
            "endTime": _end(run),
            "actionStatus": "http://schema.org/CompletedActionStatus",
            "object": _refs(["params.yaml", f"#data-{corpus}"]),
            "result": _refs([f"{path}/"]),
        },
    ]


def _software_id(run: Mapping[str, Any]) -> str:
    return f"#spectralgru-{run['git_commit'] or run['versions'].get('spectralgru', 'unknown')}"


def _end(run: Mapping[str, Any]) -> str:
    end = datetime.fromisoformat(run["started"]) + timedelta(seconds=run["wall_seconds"])
    return end.isoformat(timespec="seconds")


def _ref(name: str) -> Entity:
    return {"@id": name}


def _refs(names: Iterable[str]) -> Entity | list[Entity]:
    """References; a single one without a list, as RO-Crate requires."""
    refs = [_ref(name) for name in names]
    return refs[0] if len(refs) == 1 else refs
