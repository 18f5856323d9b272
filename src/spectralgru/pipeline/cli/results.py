"""Commands that make results from finished runs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectralgru.pipeline.cli import options
from spectralgru.pipeline.cli.options import (
    DATA,
    PARAMS,
    CorporaOption,
    DataOption,
    OutOption,
    ParamsOption,
    ScaleOption,
)

if TYPE_CHECKING:
    from spectralgru.pipeline.results.load import Campaign


def samples(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    data: DataOption = DATA,
    out: OutOption = None,
) -> None:
    """Continue a tune (MIDI, sound, piano rolls) or sentences with the best constrained and the best clipped run."""
    from spectralgru.pipeline.sampling.campaign import write_samples

    _write(lambda campaign: write_samples(campaign, data), params, scale, corpora, out)


def tables(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    out: OutOption = None,
) -> None:
    """Write the tables, ours beside the paper's, the list of runs and the learning curves."""
    from spectralgru.pipeline.results.curves import write_curves
    from spectralgru.pipeline.results.runs import write_runs
    from spectralgru.pipeline.results.tables import write_tables

    def write(campaign: "Campaign") -> list[Path]:
        return [*write_tables(campaign), *write_runs(campaign), *write_curves(campaign)]

    _write(write, params, scale, corpora, out)


def figures(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    data: DataOption = DATA,
    out: OutOption = None,
) -> None:
    """Write the figures."""
    from spectralgru.pipeline.results.figures import write_figures

    _write(lambda campaign: write_figures(campaign, data), params, scale, corpora, out)


def claims(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    out: OutOption = None,
) -> None:
    """Check the paper's claims on the runs: holds, fails or undecided, with the evidence."""
    from spectralgru.pipeline.results.claims import write_claims

    _write(write_claims, params, scale, corpora, out)


def provenance(
    artifact: Annotated[
        str | None,
        typer.Argument(help="a table or figure: table1, ptb-trajectory or a path; none: record all"),
    ] = None,
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    data: DataOption = DATA,
    out: OutOption = None,
) -> None:
    """Say which runs, commit, parameters, data and machine a table or figure comes from, or record it for all."""
    from spectralgru.pipeline.provenance.explain import explain, find, read_record
    from spectralgru.pipeline.provenance.record import write_provenance

    chosen = options.load(params, scale)
    root, seeds = options.results(out, chosen.scale), chosen.section.seeds
    settings = {corpus: chosen.settings(corpus) for corpus in corpora or chosen.chosen_corpora()}
    if artifact is None:
        for path in write_provenance(root, settings, seeds, data, params):
            typer.echo(path)
    else:
        record = read_record(root)
        for line in explain(root, record, find(record, artifact), settings, seeds):
            typer.echo(line)


def report(params: ParamsOption = PARAMS, scale: ScaleOption = None, out: OutOption = None) -> None:
    """Write report.html: one page of answer, tables, figures, claims and provenance, as they are there."""
    from spectralgru.pipeline.report import write_report

    typer.echo(write_report(options.results(out, options.load(params, scale).scale)))


def _write(
    write: "Callable[[Campaign], list[Path]]",
    params: Path,
    scale: str | None,
    corpora: list[str] | None,
    out: Path | None,
) -> None:
    """Load the campaign's runs and name the files made from them."""
    from spectralgru.pipeline.results.load import Campaign

    chosen = options.load(params, scale)
    settings = {corpus: chosen.settings(corpus) for corpus in corpora or chosen.chosen_corpora()}
    root = options.results(out, chosen.scale)
    for path in write(Campaign.load(root, settings, chosen.section.seeds, chosen.scale)):
        typer.echo(path)
