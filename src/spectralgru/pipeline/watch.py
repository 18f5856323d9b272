"""`spectralgru status --watch`: the state of a campaign, as bars in a terminal and as plain lines elsewhere."""

import time
from collections import Counter
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from spectralgru.pipeline.params import Params
from spectralgru.pipeline.status import RunStatus, State, campaign_status, describe, time_left

ENDED: tuple[State, ...] = ("finished", "diverged")


def watch(params: Params, root: Path, every: float, console: Console | None = None) -> None:
    """Show the campaign below `root` (`results/<scale>`) every `every` seconds until all of its runs have ended."""
    console, said = console or Console(), ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            runs = list(campaign_status(params, root))
            if console.is_terminal:
                live.update(bars(runs), refresh=True)
            elif (text := describe(params, root)) != said:
                console.print(said := text, soft_wrap=True)
            if all(run.state in ENDED for run in runs):
                return
            time.sleep(every)


def bars(runs: list[RunStatus]) -> Group:
    """A bar of ended runs for each corpus, a bar of epochs for each run in progress, and the time left."""
    table = Table.grid(padding=(0, 1))
    for corpus in dict.fromkeys(run.corpus for run in runs):
        counts = Counter(run.state for run in runs if run.corpus == corpus)
        ended = sum(counts[state] for state in ENDED)
        said = ", ".join(f"{n} {state}" for state, n in counts.items())
        table.add_row(corpus, ProgressBar(counts.total(), ended, width=30), said)
    for run in runs:
        if run.state == "running":
            best = "" if run.metric is None else f", best validation {run.metric:.4g}"
            name = f"  {run.corpus} {run.setting} seed {run.seed}"
            bar = ProgressBar(run.epochs, run.epoch, width=30)
            table.add_row(name, bar, f"epoch {run.epoch} of {run.epochs}{best}")
    return Group(table, time_left(runs))
