"""Emo-DPO: its contract on pairs of samples, all terms by hand, the change of the reference, and pairs of speech."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rrpo.config import ArmConfig
from rrpo.corpus.features import write_speech
from rrpo.corpus.manifest import Utterance
from rrpo.experiment import dataflow
from rrpo.optimizers import OPTIMIZERS, EmoDPO, State
from rrpo.optimizers.emo_dpo import SPEECH, reference, side, smoothed_kl, speech_pairs
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import score
from rrpo.plugins import PluginError
from rrpo.profiles import SMOKE
from rrpo.testing.optimizers import OptimizerContract
from rrpo.testing.toy_models import AUDIO, EMOTIONS

RANKED = {
    "pairs": "samples",
    "tags": "requested",
    "candidates": 16,
    "sft_weight": 0.0,
    "kl_weight": 0.0,
    "stage_one": 0.0,
}


class TestEmoDPO(OptimizerContract):
    """Use preferences only, because the fine-tuning terms do not depend on the reward."""

    choice = OPTIMIZERS.choice("emo-dpo", **RANKED)

    def started(self, models: Models, inputs: dict[str, Path], **options: object) -> tuple[EmoDPO, State]:
        choice = OPTIMIZERS.choice("emo-dpo", **({"pairs": "samples"} | options))  # type: ignore[arg-type]
        method = OPTIMIZERS.create(choice)
        assert isinstance(method, EmoDPO)
        prompts = Prompts.load(inputs["rl_prompts"], models)
        return method, method.start(models, prompts, self.config(optimizer=choice), inputs)

    def test_the_chosen_sample_has_the_better_reward(self, models: Models, inputs: dict[str, Path]) -> None:
        """Only pairs with the better y+ count; with ``own`` tags y- has another emotion, otherwise the same."""
        for tags, alike in (("requested", True), ("own", False)):
            _, state = self.started(models, inputs, tags=tags)
            assert set(state["weight"].tolist()) <= {0.0, 1.0}
            assert float(state["weight"].mean()) > 0.5
            same = (state["chosen_prefix"] == state["rejected_prefix"]).all(1)
            assert bool(same.all()) is alike
            assert bool((~same).all()) is not alike

    @pytest.mark.parametrize("divergence", ["kl", "js"])
    @pytest.mark.parametrize("length_normalized", [True, False])
    def test_the_terms_are_the_written_formulas(
        self, divergence: str, length_normalized: bool, models: Models, inputs: dict[str, Path]
    ) -> None:
        """One utterance at a time, after the policy has moved away from its reference."""
        method, state = self.started(
            models, inputs, divergence=divergence, length_normalized=length_normalized, dpo_beta=0.7, tags="own"
        )
        with torch.no_grad():
            for parameter in models.policy.parameters():
                parameter.mul_(1.3)
        state["weight"][2] = 0.0
        terms = method.terms(models.policy, state, torch.arange(4))

        def log_probs(model: object, name: str, i: int) -> list[float]:
            prefix, rollout = side(state, name, torch.tensor([i]))
            tokens = rollout.tokens[0].tolist()
            log_p = model.logits(prefix, rollout.tokens)[0].log_softmax(1)  # type: ignore[attr-defined]
            sampled = [*tokens, models.policy.codes][: len(tokens) + int(rollout.ended[0])]
            return [log_p[t, code].item() for t, code in enumerate(sampled)]

        for i in range(4):
            moved = []
            for name in ("chosen", "rejected"):
                now, was = log_probs(models.policy, name, i), log_probs(models.reference, name, i)
                change = (sum(now) - sum(was)) / (len(now) if length_normalized else 1)
                u = math.exp(change)
                moved.append(math.log(2 * u / (1 + u)) if divergence == "js" else math.log(u))
            loss = -math.log(1 / (1 + math.exp(-0.7 * (moved[0] - moved[1]))))
            assert terms["dpo"][i].item() == pytest.approx(loss * float(state["weight"][i]), rel=1e-3, abs=1e-6)
            assert float(terms["preferred"][i]) == float(moved[0] > moved[1])
            chosen = log_probs(models.policy, "chosen", i)
            assert terms["sft"][i].item() == pytest.approx(-sum(chosen) / len(chosen), rel=1e-4)

    def test_the_reference_is_the_policy_at_the_end_of_stage_one(self, models: Models, inputs: dict[str, Path]) -> None:
        """Half of 6 steps: preferences have weight 0 at step 2, and 2 from step 3 on, when the current policy becomes the
        reference; the weights of KL, cross-entropy and chi-squared penalty are 3, 5 and .5."""
        weights = {"dpo_weight": 2.0, "kl_weight": 3.0, "sft_weight": 5.0}
        method, state = self.started(models, inputs, stage_one=0.5, **weights)
        config = self.config(optimizer=OPTIMIZERS.choice("emo-dpo", pairs="samples"), beta=0.5, penalty="chi2")
        batch, before = self.batch(models, inputs, config), state["reference"]
        with torch.no_grad():
            for parameter in models.policy.parameters():
                parameter.mul_(1.3)
        for step, moved in ((2, False), (3, True)):
            (update,) = method.updates(models, replace(batch, step=step), config, state)
            parts = list(update)
            assert torch.equal(state["reference"], before) is not moved
            preferences, smoothed, supervised = (
                sum(p.part.share * float(p.values[name].mean()) for p in parts)
                for name in ("dpo", "smoothed_kl", "sft")
            )
            penalty = sum(p.part.share * float(score(models, p.part, "chi2").penalty.mean()) for p in parts)
            expected = 2 * moved * preferences + 3 * smoothed + 5 * supervised + 0.5 * penalty
            assert sum(float(p.loss) for p in parts) == pytest.approx(expected, rel=1e-4)
        assert torch.equal(state["reference"], reference(models.policy, state))
        assert preferences == pytest.approx(math.log(2) * float(state["weight"][state["order"][3]].mean()), rel=1e-4)

    def test_processes_share_the_pairs_of_a_batch(
        self, models: Models, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second of two processes has the odd rows of the whole batch, and their pairs."""
        method, state = self.started(models, inputs)
        config, terms = self.config(optimizer=OPTIMIZERS.choice("emo-dpo", pairs="samples")), EmoDPO.terms
        batch = self.batch(models, inputs, config)
        used: list[int] = []
        monkeypatch.setattr(EmoDPO, "terms", lambda *given: used.extend(given[-1].tolist()) or terms(*given))

        def pairs_of(rows: range) -> list[int]:
            used.clear()
            own = torch.tensor(rows)
            share = replace(
                batch, prompts=batch.prompts.select(own), rollout=batch.rollout.select(own), numbers=list(rows)
            )
            for update in method.updates(models, share, config, state):
                list(update)
            return sorted(used)

        order = state["order"][batch.step].tolist()
        assert pairs_of(range(len(order))) == sorted(order)
        assert pairs_of(range(1, len(order), 2)) == sorted(order[1::2])

    @pytest.mark.parametrize("tags", ["own", "requested"])
    def test_pairs_of_speech(self, tags: str, models: Models, inputs: dict[str, Path], tmp_path: Path) -> None:
        """Two texts in two emotions each: four pairs, whose sides are the codec's tokens of the two utterances."""
        references = [said(text, emotion) for text, emotion in (("ab", "angry"), ("ba", "sad"))]
        parallel = [said(text, emotion) for text, emotion in (("ab", "happy"), ("ba", "angry"))]
        rng = np.random.default_rng(0)
        for name, utterances in zip(SPEECH, (references, parallel), strict=True):
            (tmp_path / name).mkdir()
            mels = [rng.normal(size=(8 + 4 * i, AUDIO.n_mels)).astype(np.float16) for i in range(2)]
            write_speech(tmp_path / name, AUDIO, EMOTIONS, utterances, mels)
        folders = inputs | {name: tmp_path / name for name in SPEECH}
        method, state = self.started(models, folders, pairs="speech", tags=tags)
        assert method.inputs == SPEECH
        assert state["weight"].tolist() == [1, 1, 1, 1]
        pairs = [("angry", "happy"), ("happy", "angry"), ("sad", "angry"), ("angry", "sad")]
        texts = ["ab", "ab", "ba", "ba"]
        for i, ((chosen, rejected), text) in enumerate(zip(pairs, texts, strict=True)):
            for name, tag in (("chosen", chosen), ("rejected", rejected if tags == "own" else chosen)):
                expected = models.policy.prefix_ids([tuple(text)], ["anna"], [tag])  # type: ignore[attr-defined]
                assert torch.equal(side(state, name, torch.tensor([i]))[0], expected)
        assert bool(state["chosen_ended"].all())
        assert torch.equal(
            side(state, "chosen", torch.tensor([0]))[1].tokens, side(state, "rejected", torch.tensor([1]))[1].tokens
        )
        loss = method.terms(models.policy, state, torch.arange(4))["dpo"]
        assert loss.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-4)
        alone = inputs | {name: tmp_path / SPEECH[0] for name in SPEECH}
        with pytest.raises(ValueError, match="spoken in two emotions"):
            self.started(models, alone, pairs="speech")


def said(text: str, emotion: str) -> Utterance:
    return Utterance(
        id=f"{text}-{emotion}",
        text=text,
        phones=tuple(text),
        speaker="anna",
        language="en",
        emotion=emotion,
        true_emotion=emotion,
        split="sft",
        audio="none.wav",
    )


def test_each_utterance_is_chosen_once_against_another_emotion() -> None:
    rows = [said("ab", "angry"), said("ba", "sad"), said("ab", "angry"), said("ab", "happy"), said("a", "sad")]
    assert speech_pairs(rows) == [(0, 3), (2, 3), (3, 0)]


def test_the_smoothed_kl_by_hand() -> None:
    """Two codes and eos; p = (.5, .25, .25), ε = .2: q = (.9, .1, 0) for the first code, (.1, .1, .8) for eos."""
    log_p = torch.tensor([[0.5, 0.25, 0.25]] * 2).log()
    ours = smoothed_kl(log_p, torch.tensor([0, 2]), 0.2)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.25)
    second = 0.1 * math.log(0.1 / 0.5) + 0.1 * math.log(0.1 / 0.25) + 0.8 * math.log(0.8 / 0.25)
    assert ours.tolist() == pytest.approx([expected, second])
    assert smoothed_kl(log_p, torch.tensor([0, 2]), 0.0).tolist() == pytest.approx([math.log(2), math.log(4)])


def test_only_pairs_of_speech_read_speech() -> None:
    """The parallel set has the texts and speakers of the SFT set; DiffRO's stage has no such input."""
    plain = dataflow.optimized(SMOKE, ArmConfig(), 1)
    stages = {
        pairs: dataflow.optimized(SMOKE, ArmConfig(optimizer=OPTIMIZERS.choice("emo-dpo", pairs=pairs)), 1)
        for pairs in ("speech", "samples")
    }
    assert stages["speech"].inputs.keys() - plain.inputs.keys() == set(SPEECH)
    assert stages["samples"].inputs.keys() == plain.inputs.keys()
    assert stages["speech"].inputs["sft_speech"].key == dataflow.sft(SMOKE, 1).inputs["speech"].key


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pairs", "all"),
        ("tags", "none"),
        ("divergence", "tv"),
        ("dpo_beta", 0.0),
        ("smoothing", 1.0),
        ("candidates", 0),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(PluginError, match=f"{option} must be"):
        OPTIMIZERS.choice("emo-dpo", **{option: value})  # type: ignore[arg-type]
