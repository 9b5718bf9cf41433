"""Compare a request with the runs folder and list what has to be built. Starts nothing and does not import torch.

Opening the store may write to it: it applies pending updates first (`ablations.tracking.reader.Store`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ablations.execution.estimate import Estimator, wall
from ablations.execution.jobs import is_stored, missing_stages
from ablations.execution.request import Request
from ablations.failures import Lost
from ablations.grids import DEVELOPMENT, GRIDS, split_label
from ablations.parameters import distinguishing
from ablations.stats.family import PILOT, primary
from ablations.stats.power_analysis import analyze_power
from ablations.tracking.invocations import Invocation, of_kind, plan_invocation, planned_seeds
from ablations.tracking.reader import Store
from ablations.tracking.recorder import cell_params
from ablations.tracking.records import TAG_GRID, Record
from ablations.tracking.runs_folder import RunsFolder
from ablations.tracking.source_version import code_warning
from rrpo.experiment.cell import Cell
from rrpo.pipeline.claims import Claims
from rrpo.pipeline.stages import Stage
from rrpo.pipeline.versions import KINDS
from rrpo.profiles import EMBEDDED


@dataclass(frozen=True)
class Plan:
    """The state of a request: which cells are complete, and which stages have to be built."""

    request: Request
    """The checked options."""
    done: dict[str, Record]
    """Cell hash -> record, of all complete cells of the grid, including those outside the request."""
    lost: dict[str, Lost]
    """Cell hash -> why its last run failed, of cells that are not complete."""
    stages: list[Stage]
    """Distinct stages to build, inputs first."""
    elsewhere: dict[str, Record] = field(default_factory=dict)
    """Cell hash -> record by another grid, of cells to run whose stages are not stored here; it is copied."""
    invocations: Sequence[Invocation] = ()
    """Earlier invocations of this grid with the same profile, world and kind of seeds (development or not), oldest first."""

    @property
    def kept_back(self) -> list[Cell]:
        """Cells that diverged or hit a bug before and are only run again with ``--retry failed``."""
        if self.request.retry_failed:
            return []
        return [cell for cell in self.request.own if cell.hash in self.lost and not self.lost[cell.hash].again]

    @property
    def todo(self) -> list[Cell]:
        """Cells to run, in execution order."""
        excluded = {cell.hash for cell in self.kept_back} | self.done.keys()
        return [cell for cell in self.request.own if cell.hash not in excluded]

    @property
    def built(self) -> list[Cell]:
        """Cells of `todo` that are built instead of copied."""
        return [cell for cell in self.todo if cell.hash not in self.elsewhere]

    @property
    def amended(self) -> list[Cell]:
        """Cells that lack results of installed optional packages, including cells that are still to run.

        Recorded cells whose stages are not stored here are left out: their policies would have to be optimized again.
        """
        recorded, store = self.recorded, self.request.folder.root
        return [cell for cell in self._lacking() if cell.hash not in recorded or is_stored(cell, store)]

    @property
    def recorded(self) -> dict[str, Record]:
        """Cell hash -> record, of complete cells of this grid and those to be copied."""
        return self.elsewhere | self.done

    def _lacking(self) -> list[Cell]:
        """Return the cells that lack optional results."""
        kept_back = {cell.hash for cell in self.kept_back}
        optional = {key: record.optional for key, record in self.recorded.items()}
        cells = (cell for cell in self.request.own if cell.hash not in kept_back)
        return [cell for cell in cells if cell.optional.keys() - optional.get(cell.hash, frozenset())]

    @property
    def records(self) -> list[Record]:
        """Records of the requested cells that are complete."""
        return [self.done[cell.hash] for cell in self.request.cells if cell.hash in self.done]

    def states(self) -> dict[str, str]:
        """Return cell hash -> state: done, missing, failed (why), recorded by another grid, stale (what changed) or at work (the
        building process)."""
        request = self.request
        by_name = {(record.label, record.seed, record.profile, record.world): record for record in self.done.values()}
        owners = _owners(request.folder, request.cells)
        states: dict[str, str] = {}
        for cell in request.cells:
            failure = self.lost.get(cell.hash)
            previous = by_name.get((cell.label, cell.seed, cell.profile.name, str(cell.profile.world.seed)))
            if cell.hash in self.done:
                states[cell.hash] = "done"
            elif owner := owners.get(cell.hash):
                states[cell.hash] = f"at work: {owner}"
            elif failure:
                again = "run again" if failure.again or request.retry_failed else "not run again without --retry failed"
                states[cell.hash] = f"failed, {failure} ({again})"
            elif copied := self.elsewhere.get(cell.hash):
                states[cell.hash] = f"recorded by grid {copied.tags[TAG_GRID]}, to be copied"
            elif previous:
                states[cell.hash] = f"stale: {_change(previous, cell)}"
            else:
                states[cell.hash] = "missing"
        return states

    def rows(self) -> list[str]:
        """Return one readable line per cell with its state."""
        states = self.states()
        return [f"  {cell.name:<24} {cell.hash[:8]}  {states[cell.hash]}" for cell in self.request.cells]

    def arms(self) -> list[str]:
        """Return one readable line per arm with the settings in which it differs from most other arms."""
        first = {cell.label: cell for cell in reversed(self.request.cells)}
        differences = distinguishing({label: cell_params(first[label]) for label in self.request.arms})
        rows = [f"  {label:<24} {row}" for label, row in differences.items()]
        return ["the arms differ in (values that most of them share are left out):", *rows] if rows else []

    def power_analysis(self) -> list[str]:
        """Return the power analysis of all seeds planned so far, as readable lines, or why nothing is tested."""
        request = self.request
        if request.grid in GRIDS and GRIDS[request.grid].screen:
            return ["a screen: estimates and intervals, nothing is tested"]
        if not any(cell.policy for cell in request.cells):
            return ["reward models alone: recognition is tested on each set of --test, no policy is optimized"]
        if request.cells[0].profile.cosyvoice:
            return [f"{primary().label} is not defined on speech tokens: estimates and intervals, nothing is tested"]
        seeds = planned_seeds([*self.invocations, plan_invocation(request.cells)], request.declared) or [
            len(request.seeds)
        ]
        cell = request.cells[0]
        measured = PILOT is not None and (PILOT.world, EMBEDDED.name) == (cell.world_hash, cell.profile.name)
        return analyze_power({*request.arms, *request.declared}, seeds[-1], PILOT if measured else None)

    def lines(self, estimator: Estimator, *, cells: bool = True) -> list[str]:
        """Return the plan as readable lines: cells and kinds of stages (unless ``cells`` is false), time and disk space."""
        request = self.request
        kinds = Counter(stage.name for stage in self.stages).items() if cells else ()
        held_back = f", {len(self.kept_back)} that failed are left out (--retry failed)" if self.kept_back else ""
        held_back += "" if request.shard == (1, 1) else f" in shard {request.shard[0]}/{request.shard[1]}"
        done = sum(cell.hash in self.done for cell in request.cells)
        copied = f"{len(self.elsewhere)} to copy from other grids, " if self.elsewhere else ""
        amended = self.amended
        to_done = sum(cell.hash in self.done for cell in amended)
        optional = f"; optional results to add to {to_done} that are done" if to_done else ""
        if left_out := len(self._lacking()) - len(amended):
            optional += f"; {left_out} lack optional results, but their stages are not stored here"
        return [
            f"grid {request.grid}: {len(request.arms)} arms, {len(request.seeds)} seeds, {len(request.cells)} cells, "
            f"{done} done, {copied}{len(self.built)} to run{held_back}{optional}",
            *(f"set {setting}" for setting in request.settings),
            *([*self.rows(), *self.arms()] if cells else ()),
            f"stages to build: {len(self.stages) or 'none'}",
            *(f"{count:>5} x {name:<17} {KINDS[name].description}" for name, count in kinds),
            *self.power_analysis(),
            *([f"WARNING: {warning}"] if (warning := code_warning([*self.records, *self.elsewhere.values()])) else []),
            f"time on {request.workers} worker(s), {request.device}: {wall(self.stages, estimator, request.workers)}"
            f"; disk: {estimator.space(self.stages)}",
        ]


def _change(record: Record, cell: Cell) -> str:
    """Describe how a requested cell differs from a complete record with the same name."""
    recorded, requested = record.config, cell.params()
    names = sorted(key for key in recorded.keys() | requested.keys() if recorded.get(key) != requested.get(key))
    if not names:
        return "the code of a stage changed (its version in rrpo/pipeline/versions.py)"
    shown = ", ".join(f"{key} {recorded.get(key, 'absent')} -> {requested.get(key, 'absent')}" for key in names[:3])
    return f"the config changed: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _owners(folder: RunsFolder, cells: Sequence[Cell]) -> dict[str, str]:
    """Return cell hash -> the live process that is building one of the cell's own stages."""
    owners = Claims(folder.claims).holders()
    if not owners:
        return {}
    stages = {cell.hash: [stage.folder for stage in cell.stages.values()] for cell in cells}
    return {key: str(owners[name]) for key, names in stages.items() for name in names if name in owners}


def _invocations(store: Store, request: Request) -> list[Invocation]:
    cell = request.cells[0]
    invocations = [
        invocation
        for invocation in store.plans(request.grid)
        if (invocation.profile, invocation.world_hash) == (cell.profile.name, cell.world_hash)
    ]
    return of_kind(invocations, development=min(request.seeds) >= DEVELOPMENT)


def _elsewhere(store: Store, grid: str, cells: Sequence[Cell]) -> dict[str, Record]:
    """Return cell hash -> record by another grid, of those of ``cells`` that have one under their own label or, if a setting
    changes no stage, under that of their arm: ``diffro`` is ``diffro@own``."""
    hashes = {cell.hash: cell.hash_as(split_label(cell.label)[0]) for cell in cells}
    found = store.elsewhere(grid, {*hashes, *hashes.values()}) if cells else {}
    records = {own: found.get(own) or found.get(as_arm) for own, as_arm in hashes.items()}
    return {own: record for own, record in records.items() if record}


def make(request: Request) -> Plan:
    """Compare a request with the runs folder."""
    plan = Plan(request, {}, {}, [])
    if request.folder.exists:
        store = Store(request.folder)
        plan = Plan(request, *store.states(request.grid), [], invocations=_invocations(store, request))
        missing = [cell for cell in plan.todo if not is_stored(cell, request.folder.root)]
        plan = replace(plan, elsewhere=_elsewhere(store, request.grid, missing))
    return replace(plan, stages=missing_stages(plan.built, plan.amended, request.folder.root))
