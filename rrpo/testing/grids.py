"""The contract of a grid, `ablations.grids.Grid`. In a test file of your own:

class TestMine(GridContract):
    grid = GRIDS["mine"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from rrpo.pipeline.cell import Cell
from rrpo.profiles import SMOKE, Profile

SEEDS = (1, 2, 3)


class GridLike(Protocol):
    """What of a grid is tested."""

    def cells(self, profile: Profile, seeds: Sequence[int], /) -> list[Cell]:
        """Arms x seeds."""


class GridContract:
    """What plans, statistics and reports take for granted."""

    grid: ClassVar[GridLike]
    """The grid under test."""
    profile: ClassVar[Profile] = SMOKE
    """On which it is tested."""

    def cells(self, seeds: Sequence[int] = SEEDS) -> list[Cell]:
        """The grid's cells."""
        return self.grid.cells(self.profile, seeds)

    def test_a_label_is_given_once_a_seed(self) -> None:
        """Cells are told apart by label and seed."""
        names = [cell.name for cell in self.cells()]
        assert names, "a grid has cells"
        assert len(set(names)) == len(names), f"given twice: {sorted({n for n in names if names.count(n) > 1})}"

    def test_a_label_names_one_arm(self) -> None:
        """An arm is the same config for every seed, on the profile that was asked for."""
        arms: dict[str, Cell] = {}
        for cell in self.cells():
            assert cell.arm == arms.setdefault(cell.label, cell).arm, f"{cell.label} has two configs"
            assert cell.profile is self.profile, f"{cell.name} is not on the profile asked for"

    def test_cells_go_seed_by_seed(self) -> None:
        """Seeds complete one after the other, so that a run that is cut off has whole pairs."""
        seeds = [cell.seed for cell in self.cells()]
        assert seeds == sorted(seeds), "give all arms of a seed before the next seed: ablations.grids.product does"
        assert set(seeds) == set(SEEDS), "every seed asked for, and no other"

    def test_arms_are_paired_over_seeds(self) -> None:
        """A seed's arms share the SFT policy that they start from, and the seeds' do not."""
        starts = {cell.seed: set[str]() for cell in self.cells()}
        for cell in self.cells():
            if cell.policy:
                starts[cell.seed].add(cell.stages["optimized"].inputs["policy"].key)
        assert all(len(keys) <= 1 for keys in starts.values()), "arms of one seed start from different policies"
        every = [key for keys in starts.values() for key in keys]
        assert len(set(every)) == len(every), "two seeds start from one policy"

    def test_keys_are_stable(self) -> None:
        """Asked again, or for other seeds beside it, a cell is the same: otherwise nothing finished is ever found."""
        first = {cell.name: cell.hash for cell in self.cells()}
        assert {cell.name: cell.hash for cell in self.cells()} == first
        alone = {cell.name: cell.hash for cell in self.cells(SEEDS[-1:])}
        assert alone.items() <= first.items(), "a cell depends on which other seeds are asked for"
        assert len(set(first.values())) == len(first), "two cells have one identity"
