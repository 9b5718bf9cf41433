"""Reward models: accuracies, gradient fidelity, and emotion recognition on the user's own test sets.

Emotion recognition is like RRPO's Table 2: accuracies of each reward model, and effects of the components.
"""

from __future__ import annotations

import json

import numpy as np

from ablations.components import COMPONENTS, component
from ablations.judges import tuning
from ablations.outcomes import Outcome, followed
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import N, by_arm, rm_outcomes, scalar
from ablations.stats.contrasts import apply, difference
from ablations.stats.family import family, margin_text
from ablations.stats.statistics import t_interval
from ablations.tracking.records import Record
from reports import manipulation
from reports.loading import Selection
from reports.verdicts import CONTRAST, INTERIM, VERDICT, simultaneous, verdict, with_check
from rrpo.arms import BASE
from rrpo.regularizers import CONTROLS

TEST_SET = "rm_accuracy_test_"
"""Prefix of the accuracies on test sets other than the policy's own speakers."""
LANGUAGES = {"zh": "Mandarin", "cmn": "Mandarin", "en": "English", "de": "German"}
WEIGHTED, UNWEIGHTED = "rm_wa_", "rm_ua_"
"""Prefixes of the scalars of a test set, see `rrpo.diagnostics.examine.build_test_set`."""
OF_FOLDS = "none (folds)"
"""In place of a verdict on folds, which are not independent."""


def sheet(selection: Selection) -> Sheet | None:
    """Return each distinct reward model's results on in-language and cross-domain test sets, with manipulation checks; None if
    there is none."""
    outcomes = rm_outcomes(selection.records)
    scalars = {name for record in selection.records for name in record.scalars}
    foreign = sorted(name for name in scalars - {o.name for o in outcomes} if name.startswith(TEST_SET))
    outcomes[2:2] = [followed(name, domain(name), name, direction=+1) for name in foreign]
    outcomes[:0] = _recognition(selection)
    if not outcomes:
        return None
    arms: dict[str, list[str]] = {}
    for record in selection.records:
        sharing = arms.setdefault(_reward_model(record), [])
        sharing += [record.label] * (record.label not in sharing)
    targets = ", ".join(f"{c.label}'s target is {c.check.text}" for c in COMPONENTS if c.check)
    config = selection.records[0].config
    trained_on = LANGUAGES.get(config.get("profile.world.language", "").strip('"'), "one language")
    if "profile.manifests.rm_pretrain.digest" in config:
        trained_on = "the user's own speech"
    notes: tuple[str, ...] = (
        "Accuracy of each arm's reward model on the target emotion; reward models are trained on "
        f"{trained_on}. Mean over seeds ± half the 95 % t-interval. valid: unseen texts by all speakers of reward-model data "
        "(a small training set has few of them); test: the policy's speakers; other languages and synthesizers: the same "
        "emotions in a kind of speech that it was not trained on (cross-domain, until there are real corpora); biased test: "
        "planted artefacts go with the emotions as in pre-training; decorrelated test: they say nothing about the emotion, so a "
        "large difference between the two means reliance on the shortcut. ECE: expected calibration error. FGM and PGD: accuracy "
        "under attacks on h' of relative radius 0.1. "
        f"Manipulation checks: {targets}.",
        "Gradient fidelity: one token, or 30 % of the tokens, are swapped in samples of the SFT policy. The change "
        "predicted by the reward's gradient is correlated with the true change of the same reward model (own), and "
        f"with the change of the {tuning().label}'s log-probability (judge), which also depends on how well the two "
        "models agree on such swaps.",
    )
    controls = {
        arm: manipulation.check(selection.records, component(arm), difference(arm, BASE))
        for arm in selection.arms
        if arm in CONTROLS
    }
    notes += (*_recognition_notes(selection), *manipulation.component_notes(selection), *manipulation.note(controls))
    if shared := [f"{first}: also {', '.join(others)}" for first, *others in arms.values() if others]:
        notes += (f"Arms that share a reward model have one row: {'; '.join(shared)}.",)
    first = {sharing[0] for sharing in arms.values()}
    records = [record for record in selection.records if record.label in first]
    return by_arm("reward_models", "Reward models", records, outcomes, *notes)


def domain(name: str) -> str:
    """Return the name of a cross-domain test set from the name of its accuracy: a language, or a synthesizer."""
    short = name.removeprefix(TEST_SET)
    return LANGUAGES.get(short, short.replace("_", " "))


def _reward_model(record: Record) -> str:
    """Return the part of an arm's config that determines its reward model. Fine-tuning is part of it only if there is any; if
    samples were mined from the arm's own optimization, the whole config is."""
    prefixes: tuple[str, ...] = ("arm.rm_data", "arm.finetune", "arm.shuffle_labels", "arm.shortcut")
    prefixes += ("arm.rm_utterances", "arm.rm_speakers", "arm.rm_seed")
    prefixes += ("arm.members", "arm.combination", "arm.variance_penalty", "arm.rounds")
    if record.config.get("arm.finetune") != "false":
        prefixes += ("arm.regularizers.", "arm.rater_noise", "arm.rm_lr", "arm.annotated")
    if record.config.get("arm.rounds", "0") != "0":
        prefixes = ("arm.",)
    params = {name: value for name, value in record.config.items() if name.startswith(prefixes)}
    return json.dumps(params or record.label, sort_keys=True)


def sets_examined(selection: Selection) -> list[str]:
    """Return the names of the user's own test sets on which some reward model was evaluated."""
    names = {name for record in selection.records for name in record.scalars}
    return sorted(name.removeprefix(UNWEIGHTED) for name in names if name.startswith(UNWEIGHTED))


def _recognition(selection: Selection) -> list[Outcome]:
    """Return WA and UA on every test set, for the table of reward models."""
    return [
        followed(f"{start}{name}", f"{name}, {measure}", f"{start}{name}", direction=+1)
        for name in sets_examined(selection)
        for start, measure in ((WEIGHTED, "WA"), (UNWEIGHTED, "UA"))
    ]


def _recognition_notes(selection: Selection) -> list[str]:
    """Return the caption of `_recognition`; empty without a test set."""
    sets = sets_examined(selection)
    counts = [
        f"{name}: {_mean(selection, f'rm_n_{name}')} utterances, {_mean(selection, f'rm_left_out_{name}')} excluded, whose "
        "emotion is not among the reward model's classes"
        for name in sets
    ]
    if not sets:
        return []
    return [
        "WA: share of utterances recognized; UA: mean recall over the emotions in the set. Mean over seeds (or folds of "
        f"speakers, one per seed) ± half the 95 % t-interval. {'; '.join(counts)}."
    ]


def recognition_effects(selection: Selection) -> Sheet | None:
    """Return each regularizer's effect on UA, over the factorial and within RRPO, on every test set; None if no seed has the
    arms.

    The verdicts are those of the primary family's rule. There are none with folds.
    """
    contrasts = family()
    level = simultaneous(contrasts)
    failed = [name for name, check in manipulation.checks(selection.records, contrasts).items() if check.failed]
    seeds = selection.seeds({arm for weights in contrasts.values() for arm in weights})
    complete = selection.planned_n == len(seeds) > 1
    training_sets = {record.config.get("profile.manifests.rm_pretrain.digest") for record in selection.records}
    rows: list[dict[Column, Value]] = []
    for name in sets_examined(selection):
        values = scalar(f"{UNWEIGHTED}{name}", selection.records)
        for contrast, weights in contrasts.items():
            x = apply(weights, values, seeds)
            x = x[np.isfinite(x)]
            if len(x):
                row: dict[Column, Value] = {CONTRAST: f"{name}: {contrast}", N: float(len(x))}
                row[Column("ua", "UA, points", "gain")] = t_interval(x, level)
                decision = INTERIM
                if len(training_sets) > 1:
                    decision = OF_FOLDS
                elif complete and len(x) == len(seeds):
                    decision = with_check(verdict(x, level), failed=contrast in failed)
                rows.append(row | {VERDICT: decision})
    note = (
        f"Paired differences within seeds or folds. Intervals have level {level:.4f} and are simultaneous over the "
        f"{len(contrasts)} contrasts of one test set. An interval that excludes 0 is a difference, one within "
        f"±{margin_text()} an equivalence, once all planned seeds are complete. Not part of the primary family. Folds share "
        "training speakers, which makes their intervals too narrow for a verdict."
    )
    return Sheet.of("recognition_effects", "Effects on emotion recognition", rows, note)


def _mean(selection: Selection, name: str) -> str:
    """Return the mean of a count over the cells that have it, because folds may differ."""
    counts = [record.scalars[name] for record in selection.records if name in record.scalars]
    return f"{np.mean(counts):.0f}"
