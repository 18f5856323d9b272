"""What `make reproduce` shows in a terminal: bars of the jobs, and the last line of the log of each running one."""

import re
from pathlib import Path

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_rich import LogHandler as RichLogHandler

END = 4096  # bytes of a log that are looked at
BAR = 20  # characters
EPOCHS = re.compile(r"epoch (\d+)/(\d+)")


class Running:
    """The running jobs, drawn as they are at the moment."""

    def __init__(self):
        self.jobs = {}  # number -> name and log

    def __rich__(self):
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, width=BAR)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for name, log in list(self.jobs.values()):  # jobs come and go in another thread
            line = last_line(log)
            epochs = EPOCHS.search(line)
            bar = ProgressBar(int(epochs[2]), int(epochs[1]), width=BAR) if epochs else ""
            table.add_row(name, bar, line)
        return table


def last_line(log):
    """The end of a log; empty before there is one."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - END))
            return (file.read().decode(errors="replace").rstrip().splitlines() or [""])[-1]
    except OSError:
        return ""


class LogHandler(RichLogHandler):
    """Rich's bars of the jobs by rule, and below them the running jobs."""

    def __post_init__(self):
        super().__post_init__()
        self.running = Running()
        self.live_display.update(Group(self.live_display.get_renderable(), self.running))

    def emit(self, record):
        """Keep account of what runs; the rest is as in the plugin that this one extends."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO and record.log:
            name = " ".join(map(str, record.wildcards.values())) or record.rule_name
            self.running.jobs[record.jobid] = name, record.log[0]
        elif event == LogEvent.JOB_FINISHED:
            self.running.jobs.pop(record.job_id, None)
        elif event == LogEvent.JOB_ERROR:
            self.running.jobs.pop(record.jobid, None)
        super().emit(record)
        if event == LogEvent.RUN_INFO:
            for task in self.progress.tasks:
                task.fields["active"] = 0  # Rich's plugin would count one job too many
