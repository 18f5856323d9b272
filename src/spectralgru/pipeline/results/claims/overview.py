"""A table of claims against experiments: what was found where."""

from collections.abc import Sequence
from dataclasses import dataclass

from spectralgru.pipeline.results.claims.marks import SIGNS, Record, statement
from spectralgru.pipeline.results.names import counted

NOTE = (
    "*: undecided after Holm's correction for the claims judged together; empty: not claimed of this corpus."
)


@dataclass(frozen=True)
class Overview:
    """A row for each claim, a column for each experiment."""

    experiments: tuple[str, ...]  # corpus, scale, layers
    rows: tuple[tuple[str, tuple[str, ...]], ...]  # claim, verdicts

    @classmethod
    def of(cls, claims: Sequence[Record]) -> "Overview":
        """`claims`: records as in claims.json; those of a kept campaign have its folder as `record`."""
        experiments = tuple(dict.fromkeys(experiment(claim) for claim in claims))
        verdicts = {(claim["id"], experiment(claim)): _verdict(claim) for claim in claims}
        sentences = {claim["id"]: statement(claim) for claim in claims}
        return cls(
            experiments,
            tuple(
                (sentence, tuple(verdicts.get((id, experiment), "") for experiment in experiments))
                for id, sentence in sentences.items()
            ),
        )

    def markdown(self) -> str:
        """GitHub-flavoured Markdown, with the note."""
        lines = [("claim", *self.experiments), ("---",) * (len(self.experiments) + 1)]
        lines += [(sentence, *verdicts) for sentence, verdicts in self.rows]
        return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", NOTE])


def experiment(claim: Record) -> str:
    """Where a claim was judged: corpus, scale, layers, and the folder of a kept campaign."""
    name = f"{claim['corpus']}, {claim['scale']} scale, {counted(claim['layers'], 'layer')}"
    return f"{name} ({claim['record']})" if "record" in claim else name


def _verdict(claim: Record) -> str:
    corrected = "" if claim["verdict"] == claim["verdict_holm"] else "*"
    return f"{SIGNS[claim['verdict']]} {claim['verdict']}{corrected}"
