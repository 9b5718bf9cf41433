"""The text of a report is generated from its numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
from synthetic import Fake, grid, record, shuffled

from ablations.grids import rm, shortcut
from ablations.rendering.summary import REDRAWS, redraws
from ablations.stats.family import Pilot
from reports import effects
from reports.loading import Selection
from reports.opinion import who_listened
from reports.words import answer, methods
from rrpo.profiles import SMOKE


def answer_of(selection: Selection) -> list[str]:
    """Return the first screen's sentences; the last one is on who has listened."""
    return [*answer(selection, effects.rows(selection)), who_listened(pd.DataFrame(), selection.records)]


def test_one_component_that_cuts_hacking_by_ten_points_is_found_and_named():
    sentence, listened = answer_of(grid({"ls": 0.10}))
    assert sentence.startswith("RRPO reduces reward hacking: clean success is +10.")
    assert re.search(r"points above DiffRO's, but not shown to be above SFT's \([+-]0\.", sentence)
    assert "; of its components, LS helps (main effect +10.3 [" in sentence
    assert "in RRPO +10.2 [" in sentence
    assert "; EAM, Adv equivalent; n = 8 seeds, intervals simultaneous over 7." in sentence
    assert listened == (
        "The world is simulated: procedural speech, planted shortcut, trained judges. No human has listened."
    )


def test_hacking_stops_where_clean_success_rises_above_sft_too():
    sentence, *_ = answer_of(grid({"eam": 0.20}))
    assert sentence.startswith("RRPO stops reward hacking: clean success is +20.")
    assert "above SFT's; of its components, EAM helps" in sentence
    (sentence, *_) = answer_of(grid({"ls": 0.10}, without="sft"))
    assert "(SFT was not measured)" in sentence
    sentence, *_ = answer_of(grid({"ls": 0.12}, noise=0.03))
    assert re.search(r"^RRPO reduces .* but not shown to be above SFT's \(\+\d", sentence), "above, by its mean alone"


def test_hacking_does_not_stop_by_a_difference_from_sft_that_would_get_no_verdict():
    """RRPO is above DiffRO and SFT, but SFT lacks a seed, or `val` sees RRPO below SFT (not below DiffRO)."""
    selection = grid({"eam": 0.20})
    short = replace(selection, records=selection.records[1:], lost={("sft", 0): "missing"})
    sentence, *_ = answer_of(short)
    assert sentence.startswith("RRPO reduces reward hacking: clean success is +20.")
    assert re.search(r"not shown to be above SFT's \(\+\S+ \[\S+ \S+\], not all of its cells are complete\)", sentence)
    vetoed = lambda label, seed, clean: record(label, seed, clean, veto=clean - 0.3 * (label != "sft"))  # noqa: E731
    sentence, *_ = answer_of(grid({"eam": 0.20}, make=vetoed))
    assert sentence.startswith("RRPO reduces reward hacking: clean success is +20.")
    assert ", another judge sees the opposite)" in sentence


def test_a_difference_of_a_component_that_moved_nothing_is_told_with_it():
    selection, rng = grid({"ls": 0.10}), np.random.default_rng(1)
    for r in selection.records:
        r.__dict__["scalars"] = {"rm_ece": 0.2 + 0.01 * rng.standard_normal()}
    sentence, *_ = answer_of(selection)
    assert re.search(
        r"LS helps \(main effect \+10\S+ \[\S+ \S+\], although its manipulation check failed, in", sentence
    )


def test_an_arm_above_diffro_and_below_sft_reduces_hacking_without_stopping_it():
    sentence, *_ = answer_of(grid({"ls": 0.05, "adv": 0.05}, base=0.2))
    assert sentence.startswith("RRPO reduces reward hacking but does not stop it: clean success is +10.")
    assert re.search(r"above DiffRO's, and differs from SFT's by -\d+\.\d \[-", sentence)


def test_an_arm_below_sft_does_not_stop_hacking_even_if_its_gain_is_undecided():
    sentence, *_ = answer_of(grid({}, noise=0.04, base=0.3))
    assert sentence.startswith(
        "RRPO does not stop reward hacking; whether it reduces it is undecided: clean success dif"
    )
    sentence, *_ = answer_of(grid({}, noise=0.04, base=0.3, without="sft"))
    assert sentence.startswith("Whether RRPO stops or reduces reward hacking is undecided: clean success differs")


def test_where_nothing_helps_nothing_is_named():
    sentence, *_ = answer_of(grid({}))
    assert sentence.startswith(
        "RRPO does not reduce reward hacking by 5 points or more: clean success differs from DiffRO's by +0.6 ["
    )
    assert "; of its components, none is shown to help; LS, EAM, Adv equivalent;" in sentence
    sentence, *_ = answer_of(grid({"adv": -0.1}))
    assert sentence.startswith("RRPO does not reduce reward hacking: clean success differs")
    assert "none is shown to help; Adv harms (main effect -9." in sentence


def test_with_shuffled_labels_nothing_is_named():
    """The cells of the grid in which LS helps, with arm names shuffled within every seed."""
    sentence, *_ = answer_of(shuffled(grid({"ls": 0.10}), 3))
    assert sentence.startswith("Whether RRPO stops or reduces reward hacking is undecided: clean success differs")
    assert re.search(r"points \(\d+ seeds for power 0.8\) and from SFT's by \S+ \[\S+ \S+\]; of its comp", sentence)
    assert "none is shown to help" in sentence
    assert "helps" not in sentence


def test_an_interim_answer_says_so_in_a_clause():
    selection = grid({"ls": 0.10}, plans=(16,))
    missing = {(arm, seed): "missing" for arm in selection.arms for seed in range(8, 16)}
    sentence, *_ = answer_of(replace(selection, lost=missing))
    assert sentence.startswith(
        "Interim (72 of 144 planned cells): whether RRPO stops or reduces reward hacking is not yet tested; clean success "
        "differs from DiffRO's by +10.6 ["
    )
    assert "n = 8 of 16 planned seeds" in sentence
    for word in ("helps", "equivalent", "better"):
        assert word not in sentence


def test_a_raised_plan_and_a_part_of_the_family_are_said():
    assert "n = 8 seeds (the plan was raised from 5)" in answer_of(grid({"ls": 0.1}, plans=(5, 8)))[0]
    loo = [arm for arm in ("sft", "diffro", "eam_adv", "ls_adv", "ls_eam", "rrpo")]
    selection = grid({"ls": 0.1})
    records = tuple(r for r in selection.records if r.label in loo)
    sentence, *_ = answer_of(replace(selection, records=records, planned=dict.fromkeys(loo, 8)))
    assert "LS helps (in RRPO +10.2 [" in sentence
    assert "the 4 of 7 contrasts that this grid's arms allow" in sentence


def test_contrasts_that_are_not_of_the_family_are_counted_without_it():
    """Without the factorial's pairs, components are tested as added to DiffRO, which is no contrast of the seven."""
    arms = ["sft", "diffro", "ls", "eam", "adv", "rrpo"]
    selection = grid({"ls": 0.1})
    records = tuple(r for r in selection.records if r.label in arms)
    sentence, *_ = answer_of(replace(selection, records=records, planned=dict.fromkeys(arms, 8)))
    assert "LS helps (added to DiffRO +" in sentence
    assert sentence.endswith("n = 8 seeds, intervals simultaneous over 4 contrasts.")


def test_diverged_cells_are_done_and_a_plan_that_is_not_reached_is_the_reason():
    selection = grid({"ls": 0.1}, plans=(16,))
    records = tuple(r for r in selection.records if (r.label, r.seed) not in {("rrpo", 3), ("ls", 4)})
    diverged = {("rrpo", 3): "diverged"}
    one = tuple(r for r in selection.records if (r.label, r.seed) != ("rrpo", 3))
    sentence, *_ = answer_of(replace(selection, records=one, lost=diverged))
    assert sentence.startswith("Interim (seeds: 8 run, 16 planned): whether")
    sentence, *_ = answer_of(replace(selection, records=records, lost=diverged | {("ls", 4): "missing"}))
    assert sentence.startswith("Interim (71 of 72 planned cells): whether"), "the diverged one is done"


def test_diverged_cells_count_as_nothing_and_the_answer_without_them_is_told():
    selection = grid({"ls": 0.1})
    records = tuple(r for r in selection.records if (r.label, r.seed) != ("rrpo", 3))
    first, second, _ = answer_of(replace(selection, records=records, lost={("rrpo", 3): "diverged"}))
    assert first.startswith("Whether RRPO stops or reduces reward hacking is undecided")
    assert second.startswith("Diverged cells (1) count as clean success 0; without them: RRPO reduces reward hacking")


def test_a_veto_is_told():
    opposed = lambda label, seed, clean: record(label, seed, clean, veto=1.1 - clean)  # noqa: E731
    sentence, *_ = answer_of(grid({"ls": 0.1}, make=opposed))
    assert "points, no verdict (another judge sees the opposite) and from SFT's by" in sentence
    assert "of its components, none is shown to help" in sentence


def test_a_grid_without_the_pair_says_nothing_about_it():
    single = Selection("rm", (record("ls", 1, 0.5),), {"ls": 1}, ())
    assert answer_of(single)[0] == (
        "No seed of this grid has the clean success of both RRPO and DiffRO, so nothing can be said about reward hacking."
    )


def test_of_reward_models_alone_no_policy_is_spoken_of():
    """The real grid, which contains both RRPO and DiffRO."""
    cells = rm(SMOKE, [1, 2])
    records = tuple(Fake(c.label, c.seed, pd.DataFrame(), scalars={"rm_ece": 0.1}, params=c.params()) for c in cells)
    selection = Selection("rm", records, dict.fromkeys((c.label for c in cells), 2), (), (2,))
    first, _ = answer_of(selection)
    assert first == "Reward models alone: no policy was optimized, so nothing can be said about reward hacking."
    text = methods(selection)
    assert "Reward models alone: no policy was optimized. Other intervals have" in text
    for word in ("optimized the policy", "family", "roll-outs", "clean success"):
        assert word not in text


def test_methods_name_the_family_that_is_tested():
    text = methods(grid({}, seeds=4))
    assert "Adv, in RRPO; RRPO - DiffRO; paired t-tests over seeds, intervals simultaneous over 7 by Bonferroni" in text
    pair = [r for r in grid({}, seeds=4).records if r.label in ("diffro", "rrpo")]
    text = methods(Selection("x", tuple(pair), dict.fromkeys(("diffro", "rrpo"), 4), (), (4,)))
    assert "Primary family: RRPO - DiffRO; paired t-tests over seeds, intervals simultaneous over 1" in text
    cells = shortcut(SMOKE, [1])
    done = record("x", 1, 0.5)
    records = tuple(Fake(c.label, 1, done.points, done.samples, params=c.params()) for c in cells)
    text = methods(Selection("shortcut", records, dict.fromkeys((c.label for c in cells), 1), (), (5,)))
    family = "LS, added to DiffRO; EAM, added to DiffRO; Adv, added to DiffRO; RRPO - DiffRO"
    assert (
        f"Tested in each setting, secondary: {family}; paired t-tests over seeds, intervals simultaneous over 4" in text
    )
    assert "factorial" not in text


def test_methods_tell_the_committed_pilot():
    parts = {"data": (0.03, 0.06), "optimization": (0.04, 0.05)}
    text = methods(grid({}, seeds=4), Pilot(spread=0.055, seeds=8, world="w", components=parts))
    assert (
        "In a pilot on 8 development seeds of world w, the standard deviation of RRPO - DiffRO was 5.5 points" in text
    )
    assert "5.5 points; standard deviations due to" in text
    assert "in points: data 3.0 (80 % upper bound 6.0), optimization 4.0 (80 % upper bound 5.0); from few draws" in text
    screen = replace(grid({}, seeds=4), grid="baselines")
    assert "pilot" not in methods(screen, Pilot(spread=0.055, seeds=8, world="w")), "nothing is tested"
    assert "pilot" not in methods(grid({}, seeds=4), None)
    assert "pilot" not in methods(grid({}, seeds=4), Pilot(spread=0.055, seeds=8, world="another")), "of another world"


def test_methods_tell_what_was_done():
    selection = grid({}, seeds=4)
    for sft in selection.of("sft"):
        sft.params["optimize.steps"] = "0"
    text = methods(selection)
    assert "Sampled without an optimization: sft. Each other cell optimized the policy for 140 steps" in text
    assert "optimized" not in methods(replace(selection, records=tuple(selection.of("sft")), planned={"sft": 4}))
    for word in (
        "36 cells",
        "9 arms",
        "4 seeds (0 to 3)",
        "140 steps",
        "32 roll-outs",
        "planned number of seeds (4)",
        "Correlation of RRPO",
    ):
        assert word in text


def test_what_a_seed_redraws_depends_on_the_data():
    simulated, own, real = (record("rrpo", 1, 0.5) for _ in range(3))
    simulated.__dict__["config"] = {}
    own.__dict__["config"] = {"profile.manifests.annotated.digest": '"d"'}
    real.__dict__["config"] = {"profile.cosyvoice.model.digest": '"d"'}
    assert redraws([simulated]) == REDRAWS
    assert redraws([own]).startswith(f"{REDRAWS} The user's own speech (annotated) is not redrawn")
    assert "divides the corpus anew" in redraws([real])
    assert "judges are fixed" not in redraws([real])
