"""Contract tests of a grid, `ablations.grids.Grid`.

Example:

    class TestMine(GridContract):
        grid = GRIDS["mine"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from rrpo.experiment.cell import Cell
from rrpo.profiles import SMOKE, Profile

SEEDS = (1, 2, 3)


class GridLike(Protocol):
    """The part of a grid that is tested."""

    def cells(self, profile: Profile, seeds: Sequence[int], /) -> list[Cell]:
        """Return the cells of all arms and seeds."""


class GridContract:
    """Properties of a grid that plans, statistics and reports rely on."""

    grid: ClassVar[GridLike]
    """The grid under test."""
    profile: ClassVar[Profile] = SMOKE
    """Profile for the tests."""

    def cells(self, seeds: Sequence[int] = SEEDS) -> list[Cell]:
        """Return the grid's cells."""
        return self.grid.cells(self.profile, seeds)

    def test_labels_are_unique_within_a_seed(self) -> None:
        """Label and seed identify a cell."""
        names = [cell.name for cell in self.cells()]
        assert names, "a grid has cells"
        assert len(set(names)) == len(names), f"duplicate cells: {sorted({n for n in names if names.count(n) > 1})}"

    def test_a_label_names_one_arm(self) -> None:
        """An arm has the same config for every seed, on the requested profile."""
        arms: dict[str, Cell] = {}
        for cell in self.cells():
            assert cell.arm == arms.setdefault(cell.label, cell).arm, f"{cell.label} has two configs"
            assert cell.profile is self.profile, f"{cell.name} is not on the requested profile"

    def test_cells_are_ordered_by_seed(self) -> None:
        """All cells of a seed precede those of the next, so that an interrupted run has complete pairs."""
        seeds = [cell.seed for cell in self.cells()]
        assert seeds == sorted(seeds), "give all arms of a seed before the next seed: ablations.grids.product does"
        assert set(seeds) == set(SEEDS), "cells must have exactly the requested seeds"

    def test_arms_are_paired_over_seeds(self) -> None:
        """A seed's arms share the SFT policy that they start from, and different seeds do not."""
        starts = {cell.seed: set[str]() for cell in self.cells()}
        for cell in self.cells():
            if cell.policy:
                starts[cell.seed].add(cell.stages["optimized"].inputs["policy"].key)
        assert all(len(keys) <= 1 for keys in starts.values()), "arms of one seed start from different policies"
        all_keys = [key for keys in starts.values() for key in keys]
        assert len(set(all_keys)) == len(all_keys), "two seeds start from one policy"

    def test_keys_are_stable(self) -> None:
        """A cell does not depend on the call or on other requested seeds; otherwise finished cells would not be found again."""
        hashes = {cell.name: cell.hash for cell in self.cells()}
        assert {cell.name: cell.hash for cell in self.cells()} == hashes
        of_last_seed = {cell.name: cell.hash for cell in self.cells(SEEDS[-1:])}
        assert of_last_seed.items() <= hashes.items(), "a cell depends on the other requested seeds"
        assert len(set(hashes.values())) == len(hashes), "two cells have one identity"
