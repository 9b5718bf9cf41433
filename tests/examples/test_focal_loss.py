"""The example of a regulariser of one's own: its equation, the contract, and what a study of it needs no edit of ours for."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "ablations"), str(ROOT / "tests" / "reports")]

from synthetic import Fake, grid, record  # noqa: E402
from tiny import TINY  # noqa: E402

from ablations.components import COMPONENTS, factorial  # noqa: E402
from ablations.grids import arms, loo  # noqa: E402
from ablations.tracking.cell_file import cell_json, read_cell  # noqa: E402
from reports.report import make  # noqa: E402
from rrpo import plugins  # noqa: E402
from rrpo.experiment.cell import Cell  # noqa: E402
from rrpo.experiment.dataflow import reward_model  # noqa: E402
from rrpo.experiment.measurements import examined  # noqa: E402
from rrpo.models.reward_model import RewardModel  # noqa: E402
from rrpo.pipeline.stages import Context, materialise  # noqa: E402
from rrpo.profiles import SMOKE  # noqa: E402
from rrpo.regularizers import REGULARIZERS, Regularizer, cross_entropy  # noqa: E402
from rrpo.testing.regularizers import RegularizerContract  # noqa: E402
from studies.catalogue import study_of  # noqa: E402

FILE = ROOT / "examples" / "focal_loss.py"
SEED = 1000


@pytest.fixture(autouse=True)
def _focal(no_plugins: Callable[[], None]) -> None:
    plugins.use([FILE])


class TestContract(RegularizerContract):
    @property
    def regularizer(self) -> Regularizer:  # type: ignore[override]
        return REGULARIZERS["focal"]


class TestContractBelowOne(RegularizerContract):
    """Where the slope of ``(1 - p)^γ`` has no bound."""

    @property
    def regularizer(self) -> Regularizer:  # type: ignore[override]
        return replace(REGULARIZERS["focal"], gamma=0.5)


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) < 60


def test_the_equation_by_hand():
    loss = REGULARIZERS["focal"].loss(cross_entropy)
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
    assert loss(logits, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(-(0.25**2) * math.log(0.75))
    mixed = -0.2 * 0.75**2 * math.log(0.25) - 0.8 * 0.25**2 * math.log(0.75)
    assert loss(logits, torch.tensor([[0.2, 0.8]])).item() == pytest.approx(mixed)


def test_it_is_a_component_with_arms_of_its_own(monkeypatch: pytest.MonkeyPatch):
    assert [component.name for component in COMPONENTS] == ["ls", "eam", "adv", "focal"]
    assert {"focal", "ls_focal", "rrpo_focal"} <= set(factorial()) <= arms().keys()
    assert [cell.label for cell in loo(SMOKE, [SEED])][-2:] == ["rrpo_focal", "rrpo"]
    cell = Cell(label="rrpo_focal", arm=arms()["rrpo_focal"], seed=SEED, profile=SMOKE)
    again = read_cell(cell_json(cell))
    assert (again.arm, again.hash) == (cell.arm, cell.hash)
    study = study_of("regularizers")
    assert study.paper["focal.gamma"] == 0.0
    assert study.arm(study.paper) == arms()["rrpo"]
    assert study.arm({**study.paper, "focal.gamma": 2.0}) == arms()["rrpo_focal"]


def keys() -> dict[str, str]:
    """Of the reward model of every arm of the factorial."""
    return {name: reward_model(SMOKE, arms()[name], SEED).key for name in factorial()}


def test_an_edited_file_makes_its_own_reward_models_stale_and_no_others(no_plugins: Callable[[], None], tmp_path: Path):
    before = keys()
    edited = tmp_path / "focal_loss.py"
    edited.write_text(FILE.read_text() + "# edited\n")
    no_plugins()
    plugins.use([edited])
    after = keys()
    assert {name for name in before if before[name] != after[name]} == {n for n in before if "focal" in n}
    no_plugins()
    plain = keys()
    assert len(plain) == 8
    assert plain == {name: before[name] for name in plain}


def test_its_effect_its_place_in_the_factorial_and_its_check_are_reported():
    def confident(label: str, seed: int, clean: float) -> Fake:
        return record(label, seed, clean, scalars={"rm_confidence": 0.9 - 0.1 * ("focal" in label) + 0.001 * seed})

    figure = make(grid({"focal": 0.1}, make=confident))
    sheets = {sheet.name: sheet for sheet in figure.sheets}
    assert sheets["effects"].row("Focal, main effect")["verdict"] == "better"
    names: dict[str, Sequence[str]] = {name: [str(row[0]) for row in sheet.rows] for name, sheet in sheets.items()}
    assert {"Focal, in RRPO", "LS x Focal", "LS x EAM x Adv x Focal"} <= set(names["effects"])
    assert {"DiffRO + Focal", "RRPO with Focal"} <= set(names["ablation"])
    assert "Focal's target is confidence" in " ".join(sheets["reward_models"].notes)
    assert "Focal on rm_confidence -0.100" in " ".join(sheets["reward_models"].notes)


def test_its_reward_model_is_trained_examined_and_known_again(tmp_path: Path):
    torch.set_num_threads(1)
    folders = [materialise(reward_model(TINY, arms()[arm], SEED), tmp_path, Context()) for arm in ("diffro", "focal")]
    plain, focal = map(RewardModel.load, folders)
    assert focal.regularizers == arms()["focal"].regularizers
    assert not torch.equal(plain.head.weight, focal.head.weight)
    assert (materialise(examined(TINY, arms()["focal"], SEED), tmp_path, Context()) / "scalars.json").is_file()
