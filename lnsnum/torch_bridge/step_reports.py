"""What the last step of Madam did, counted in the kernels as it went."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lnsnum.torch_bridge.tables import Table, Tabular


@dataclass(frozen=True)
class StepReport(Tabular):
    """What the last step did to the LNS weights: where it left the codes, before scales grew in it."""

    weights: int
    moved: float
    """Share of weights whose code changed."""
    at_ceiling: float
    """Share at the greatest magnitude."""
    at_floor: float
    """Share at the smallest nonzero magnitude."""
    zeros: float
    """Share of zeros."""
    sign_changes: float
    """Share that went from one sign to the other."""
    grown: int
    """Scales whose ceiling was raised."""
    not_finite: int
    """Gradient elements that were NaN or infinite; they changed nothing."""

    def to_table(self) -> Table:
        """A row for each count and share."""
        shown = {name.replace("_", " "): value for name, value in asdict(self).items()}
        return Table((), [(n, f"{x:.2%}" if isinstance(x, float) else f"{x:,}") for n, x in shown.items()])


@dataclass(frozen=True)
class ShardReport(StepReport):
    """The same of what one process has of a model that fully_shard has cut."""

    process: int
    """Whose shards were counted."""
    processes: int
    """How many have a part of the model."""

    def to_table(self) -> Table:
        """A row for each count and share, and whose they are."""
        *rows, _, _ = super().to_table().rows
        whose = (
            f"of the shards of process {self.process}, one of {self.processes}: step_report(together=True) on every "
            "process counts all"
        )
        return Table((), rows, notes=[whose])
