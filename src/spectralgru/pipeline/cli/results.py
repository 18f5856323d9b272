"""Commands that make results from finished runs."""

from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectralgru.pipeline.cli import options

if TYPE_CHECKING:
    from spectralgru.pipeline.results.load import Campaign


def _results(write: Callable[..., list[Path]]) -> Callable[..., None]:
    """A command that makes results from a campaign's runs with `write`, whose further parameters become options.

    It has the options that all such commands share, loads the runs, and prints the names of the files written.
    """

    def command(
        params: options.Params = options.PARAMS,
        scale: options.Scale = None,
        corpora: options.Corpora = None,
        out: options.Out = None,
        **own: Any,
    ) -> None:
        from spectralgru.pipeline.results.load import Campaign

        chosen = options.load(params, scale)
        settings = {corpus: chosen.settings(corpus) for corpus in corpora or chosen.chosen_corpora()}
        root = options.results(out, chosen.scale)
        for path in write(Campaign.load(root, settings, chosen.section.seeds, chosen.scale), **own):
            typer.echo(path)

    *shared, _ = signature(command).parameters.values()
    _, *more = signature(write).parameters.values()
    command.__signature__ = Signature([*shared, *more])  # type: ignore[attr-defined]
    command.__annotations__ |= {option.name: option.annotation for option in more}
    command.__name__, command.__doc__ = write.__name__, write.__doc__
    return command


@_results
def samples(campaign: "Campaign", data: options.Data = options.DATA) -> list[Path]:
    """Continue a tune (MIDI, sound, piano rolls) or sentences with the best constrained and the best clipped run."""
    from spectralgru.pipeline.sampling.campaign import write_samples

    return write_samples(campaign, data)


@_results
def tables(campaign: "Campaign") -> list[Path]:
    """Write the tables, ours beside the paper's, the list of runs and the learning curves."""
    from spectralgru.pipeline.results.curves import write_curves
    from spectralgru.pipeline.results.runs import write_runs
    from spectralgru.pipeline.results.tables import write_tables

    return [*write_tables(campaign), *write_runs(campaign), *write_curves(campaign)]


@_results
def figures(campaign: "Campaign", data: options.Data = options.DATA) -> list[Path]:
    """Write the figures."""
    from spectralgru.pipeline.results.figures import write_figures

    return write_figures(campaign, data)


@_results
def claims(campaign: "Campaign") -> list[Path]:
    """Check the paper's claims on the runs: holds, fails or undecided, with the evidence."""
    from spectralgru.pipeline.results.claims.check import write_claims

    return write_claims(campaign)


def provenance(
    artifact: Annotated[
        str | None,
        typer.Argument(help="a table or figure: table1, ptb-trajectory or a path; none: record all"),
    ] = None,
    params: options.Params = options.PARAMS,
    scale: options.Scale = None,
    corpora: options.Corpora = None,
    data: options.Data = options.DATA,
    out: options.Out = None,
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


def report(
    params: options.Params = options.PARAMS, scale: options.Scale = None, out: options.Out = None
) -> None:
    """Write report.html: one page of the answer, tables, figures, claims and provenance that are there."""
    from spectralgru.pipeline.report import write_report

    typer.echo(write_report(options.results(out, options.load(params, scale).scale)))


def article(
    params: options.Params = options.PARAMS, scale: options.Scale = None, out: options.Out = None
) -> None:
    """Write article.pdf: a replication report from the same records as report.html."""
    from spectralgru.pipeline.article import write_article

    for path in write_article(options.results(out, options.load(params, scale).scale)):
        typer.echo(path)
