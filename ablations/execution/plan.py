"""Compare a request with the runs folder and list what has to be built. Starts nothing and does not import torch.

Opening the store may write to it: it applies pending updates first (`ablations.tracking.reader.Store`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ablations.execution import environment
from ablations.execution.estimate import Estimator, wall
from ablations.execution.failures import Lost
from ablations.execution.jobs import missing_stages
from ablations.execution.request import Request
from ablations.execution.runs_folder import RunsFolder
from ablations.parameters import distinguishing
from ablations.stats.power_analysis import analyze_power
from ablations.tracking.invocations import DEVELOPMENT, Invocation, on, plan_invocation, planned_seeds
from ablations.tracking.reader import Store
from ablations.tracking.recorder import cell_params
from ablations.tracking.records import Record
from rrpo.pipeline.cell import Cell
from rrpo.pipeline.claims import Claims
from rrpo.pipeline.stages import Stage

WORLDS = ("world.seed", "profile.world.seed")
"""Parameter of a record that holds the world's seed: current name, then the name in older records."""


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
    invocations: Sequence[Invocation] = ()
    """Earlier invocations of this grid with the same profile, world and kind of seeds (development or not), oldest first."""

    @property
    def kept_back(self) -> list[Cell]:
        """Cells that diverged or hit a bug before and are only run again with ``--retry failed``."""
        if self.request.retry_failed:
            return []
        return [c for c in self.request.own if c.hash in self.lost and not self.lost[c.hash].again]

    @property
    def todo(self) -> list[Cell]:
        """Cells to run, in execution order."""
        not_now = {cell.hash for cell in self.kept_back} | self.done.keys()
        return [cell for cell in self.request.own if cell.hash not in not_now]

    @property
    def amended(self) -> list[Cell]:
        """Cells that lack results of installed optional packages, including cells that are still to run."""
        there = {key: record.optional for key, record in self.done.items()}
        kept_back = {cell.hash for cell in self.kept_back}
        mine = (cell for cell in self.request.own if cell.hash not in kept_back)
        return [cell for cell in mine if cell.optional.keys() - there.get(cell.hash, frozenset())]

    @property
    def records(self) -> list[Record]:
        """Records of the requested cells that are complete."""
        return [self.done[cell.hash] for cell in self.request.cells if cell.hash in self.done]

    def states(self) -> dict[str, str]:
        """Return cell hash -> state: done, missing, failed (why), stale (what changed) or at work (the building process)."""
        request = self.request
        older = {(r.label, r.seed, r.profile, _world(r)): r for r in self.done.values()}
        owners = _owners(request.folder, request.cells)
        found: dict[str, str] = {}
        for cell in request.cells:
            lost = self.lost.get(cell.hash)
            before = older.get((cell.label, cell.seed, cell.profile.name, str(cell.profile.world.seed)))
            if cell.hash in self.done:
                found[cell.hash] = "done"
            elif owner := owners.get(cell.hash):
                found[cell.hash] = f"at work: {owner}"
            elif lost:
                again = "run again" if lost.again or request.retry_failed else "not run again without --retry failed"
                found[cell.hash] = f"failed, {lost} ({again})"
            elif before:
                found[cell.hash] = f"stale: {_change(before, cell)}"
            else:
                found[cell.hash] = "missing"
        return found

    def rows(self) -> list[str]:
        """Return one readable line per cell with its state."""
        states = self.states()
        return [f"  {cell.name:<24} {cell.hash[:8]}  {states[cell.hash]}" for cell in self.request.cells]

    def arms(self) -> list[str]:
        """Return one readable line per arm with the settings in which it differs from most other arms."""
        first = {cell.label: cell for cell in reversed(self.request.cells)}
        found = distinguishing({label: cell_params(first[label]) for label in self.request.arms})
        rows = [f"  {label:<24} {row}" for label, row in found.items()]
        return ["the arms differ in (values that most of them share are left out):", *rows] if rows else []

    def prospects(self) -> list[str]:
        """Return the power analysis of all seeds planned so far, as readable lines."""
        request = self.request
        seeds = planned_seeds([*self.invocations, plan_invocation(request.cells)], request.declared) or [
            len(request.seeds)
        ]
        return analyze_power({*request.arms, *request.declared}, seeds[-1])

    def lines(self, estimator: Estimator, *, cells: bool = True) -> list[str]:
        """Return the plan as readable lines: the cells (unless ``cells`` is false), the stages to build, time and disk space."""
        request, todo = self.request, self.todo
        kinds = Counter(stage.name for stage in self.stages)
        stages = ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "none"
        back = f", {len(self.kept_back)} kept back" if self.kept_back else ""
        back += "" if request.shard == (1, 1) else f" in shard {request.shard[0]}/{request.shard[1]}"
        done = sum(cell.hash in self.done for cell in request.cells)
        late = sum(cell.hash in self.done for cell in self.amended)
        more = f"; optional results to add to {late} that are done" if late else ""
        return [
            f"grid {request.grid}: {len(request.arms)} arms, {len(request.seeds)} seeds, {len(request.cells)} cells, "
            f"{done} done, {len(todo)} to run{back}{more}",
            *(f"set {setting}" for setting in request.settings),
            *([*self.rows(), *self.arms()] if cells else ()),
            f"stages to build: {stages}",
            *self.prospects(),
            *([f"WARNING: {warning}"] if (warning := environment.code_warning(self.records)) else []),
            f"time on {request.workers} worker(s), {request.device}: {wall(self.stages, estimator, request.workers)}"
            f"; disk: {estimator.space(self.stages)}",
        ]


def _world(record: Record) -> str | None:
    """Return the seed of a record's world as text, None if it is not recorded."""
    return next((record.params[name] for name in WORLDS if name in record.params), None)


def _change(before: Record, cell: Cell) -> str:
    """Describe how a requested cell differs from a complete record with the same name."""
    then, now = before.config, cell.params()
    names = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    if not names:
        return "the code of a stage changed (its version in rrpo/pipeline/versions.py)"
    shown = ", ".join(f"{key} {then.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in names[:3])
    return f"the config changed: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _owners(folder: RunsFolder, cells: Sequence[Cell]) -> dict[str, str]:
    """Return cell hash -> the live process that is building one of the cell's own stages."""
    owners = Claims(folder.claims).holders()
    if not owners:
        return {}
    own = {cell.hash: [stage.folder for stage in cell.stages.values()] for cell in cells}
    return {key: str(owners[name]) for key, names in own.items() for name in names if name in owners}


def _invocations(store: Store, request: Request) -> list[Invocation]:
    first = request.cells[0]
    mine = [
        one
        for one in store.plans(request.grid)
        if (one.profile, one.world_hash) == (first.profile.name, first.world_hash)
    ]
    return on(mine, development=min(request.seeds) >= DEVELOPMENT)


def make(request: Request) -> Plan:
    """Compare a request with the runs folder."""
    plan = Plan(request, {}, {}, [])
    if request.folder.exists:
        store = Store(request.folder)
        plan = Plan(request, *store.states(request.grid), [], _invocations(store, request))
    return replace(plan, stages=missing_stages(plan.todo, plan.amended, request.folder.root))
