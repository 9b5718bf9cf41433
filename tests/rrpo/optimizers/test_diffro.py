"""DiffRO's step on toy models: the formula, no hidden gradient on length, shared noise, and the files of the training loop."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from rrpo.config import OptimizeConfig, PolicyConfig, RewardModelConfig
from rrpo.corpus.prompts import Prompt
from rrpo.judges.config import RecogniserConfig
from rrpo.judges.recogniser import Recogniser
from rrpo.models.codec import Codec
from rrpo.models.policy import Policy, Rollout, token_entropy, token_kl
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers import OPTIMIZERS, DiffRO
from rrpo.optimizers import rollout as rollouts
from rrpo.optimizers.diffro import RelaxedLoss
from rrpo.optimizers.relaxation import conditional_gumbel
from rrpo.optimizers.rollout import Models, Prompts, merge, micro_batches, rollout_statistics, rollout_sums
from rrpo.optimizers.scoring import roll_out
from rrpo.seeding import uniform
from rrpo.testing.optimizers import OptimizerContract

EMOTIONS = ("angry", "happy", "sad")
CONFIG = OptimizeConfig(steps=4, batch=3, beta=0.1, content_weight=0.3, tau=(0.7,), seed=5)


@pytest.fixture
def models(toy_codec: Path) -> Models:
    torch.manual_seed(1)
    codec = Codec.load(toy_codec)
    symbols = [*Policy.SPECIALS, *(f"<{e}>" for e in EMOTIONS), "<anna>", "<ben>", "a", "b"]
    config = PolicyConfig(dim=16, layers=1, heads=2, max_tokens=12)
    policy, reference = (
        Policy(config, symbols, codec.vocabulary).eval(),
        Policy(config, symbols, codec.vocabulary).eval(),
    )
    model = RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), EMOTIONS, 8, codec.audio.floor)
    recogniser = Recogniser(RecogniserConfig(dim=16), ("a", "b"), 8)
    for frozen in (reference, model.eval(), recogniser.eval()):
        frozen.requires_grad_(False)
    return Models(policy, reference, model, recogniser, codec, val=None)  # type: ignore[arg-type]


@pytest.fixture
def prompts(models: Models) -> Prompts:
    rows = [("a", "anna", "happy"), ("ab", "ben", "sad"), ("bab", "anna", "angry")]
    prompts = [Prompt(id="x", text=t, phones=tuple(t), speaker=s, emotion=e) for t, s, e in rows]
    return Prompts.prepare(prompts, models.policy, models.codec, models.reward_model.emotions)


class TestDiffRO(OptimizerContract):
    choice = OPTIMIZERS.choice("diffro")
    steps = 30


def losses(models: Models, prompts: Prompts, config: OptimizeConfig, step: int) -> list[RelaxedLoss]:
    """Return the losses of the one update on a batch."""
    (update,) = DiffRO().updates(models, roll_out(models, prompts, config, step), config, {})
    return list(update)  # type: ignore[arg-type]


def only(models: Models, prompts: Prompts, config: OptimizeConfig, step: int) -> RelaxedLoss:
    """Return the loss of a batch that fits into one micro-batch, with rows ordered by length."""
    (loss,) = losses(models, prompts, config, step)
    return loss


def gradients(models: Models, loss: torch.Tensor) -> list[torch.Tensor]:
    grads = torch.autograd.grad(loss, list(models.policy.parameters()), allow_unused=True)
    return [torch.zeros(1) if g is None else g for g in grads]


@pytest.mark.parametrize(
    "changes", [{}, {"penalty": "chi2"}, {"reward": "bounded"}, {"tau": (2.0, 0.7)}, {"relaxation": "probabilities"}]
)
def test_the_step_is_the_written_formula(models: Models, prompts: Prompts, changes: dict[str, Any]) -> None:
    """Loss and gradient for fixed noise equal the objective computed sample by sample; step 2 of 4 has the last tau."""
    config = dataclasses.replace(CONFIG, **changes)
    step = only(models, prompts, config, 2)
    policy, rollout, prompts = models.policy, step.part.rollout, step.part.prompts
    total = torch.zeros(())
    for i in range(3):
        n = int(rollout.lengths[i])
        tokens = rollout.tokens[i : i + 1, :n]
        logits = policy.logits(prompts.prefix[i : i + 1], tokens)
        reference = models.reference.logits(prompts.prefix[i : i + 1], tokens)
        codes = logits[:, :n, :25]
        noise = uniform((n, 25), CONFIG.seed, "gumbel noise", 2, int(step.part.rows[i]))
        gumbel = conditional_gumbel(codes, tokens, noise[None]) if config.relaxation == "gumbel" else 0.0
        soft = ((codes + gumbel) / 0.7).softmax(-1)
        hard = torch.nn.functional.one_hot(tokens, 25).float()
        F, frames = models.codec.decode(
            hard + soft - soft.detach(), rollout.lengths[i : i + 1], prompts.speaker[i : i + 1]
        )
        probability = models.reward_model(F, frames).softmax(1)[0, prompts.target[i]]
        reward = probability if config.reward == "bounded" else probability.log()
        content = models.recogniser.ctc_loss(F, frames, [prompts.phones[i]])[0]
        distances = token_kl(logits, reference)
        if config.penalty == "chi2":
            distances = (2 * logits.log_softmax(-1) - reference.log_softmax(-1)).exp().sum(-1) - 1
        penalty = distances[0, : n + int(rollout.ended[i])].sum()
        total = total + (-reward + 0.3 * content + 0.1 * penalty) / 3
    assert step.loss.item() == pytest.approx(total.item(), rel=1e-5)
    for ours, written in zip(gradients(models, step.loss), gradients(models, total), strict=True):
        assert torch.allclose(ours, written, atol=1e-6)


def test_the_reward_has_no_gradient_on_eos(models: Models, prompts: Prompts) -> None:
    """With reward and content alone, the decoder's eos row gets exactly zero gradient; the KL does reach it."""
    for beta, reached in ((0.0, False), (0.1, True)):
        step = only(models, prompts, dataclasses.replace(CONFIG, beta=beta), 0)
        (gradient,) = torch.autograd.grad(step.loss, models.policy.llm_decoder.bias)
        assert bool(gradient[models.policy.eos] != 0) is reached
        assert bool((gradient[: models.policy.codes] != 0).any())


def test_a_constant_reward_changes_nothing(models: Models, prompts: Prompts) -> None:
    """A constant reward model gives no gradient at all, so length cannot change."""
    torch.nn.init.zeros_(models.reward_model.head.weight)
    config = dataclasses.replace(CONFIG, beta=0.0, content_weight=0.0)
    before = only(models, prompts, config, 0)
    assert all(bool((g == 0).all()) for g in gradients(models, before.loss))
    torch.nn.init.normal_(models.reward_model.head.weight)
    listening = only(models, prompts, config, 0)
    assert any(bool((g != 0).any()) for g in gradients(models, listening.loss))


def test_weight_and_scale_of_the_emotion_reward(models: Models, prompts: Prompts) -> None:
    """The gradient is (weight x scale) times the reward's plus the rest. The scale does not change the losses, the weight does
    not change the reported reward. With either at 0, content and KL remain."""

    def asked(**knobs: float) -> tuple[RelaxedLoss, list[torch.Tensor]]:
        step = only(models, prompts, dataclasses.replace(CONFIG, **knobs), 2)  # type: ignore[arg-type]
        return step, gradients(models, step.loss)

    plain, full = asked()
    rest = asked(emotion_weight=0.0)[1]
    for weight, scale in ((2.0, 1.0), (1.0, 3.0), (0.5, 4.0), (1.0, 0.0)):
        step, changed = asked(emotion_weight=weight, gradient_scale=scale)
        for ours, all_of_it, others in zip(changed, full, rest, strict=True):
            assert torch.allclose(ours, others + weight * scale * (all_of_it - others), atol=1e-6)
        assert torch.equal(step.values["reward_loss"], plain.values["reward_loss"])
        reward = plain.values["reward_loss"].mean()
        assert step.loss.item() == pytest.approx((plain.loss + (weight - 1) * reward).item(), rel=1e-5)
    for ours, others in zip(asked(emotion_weight=0.0, reward="full_l_ser")[1], rest, strict=True):
        assert torch.equal(ours, others)
    assert any(not torch.allclose(a, b, atol=1e-4) for a, b in zip(full, rest, strict=True))


def test_the_relaxation_changes_the_gradient_and_not_the_loss(models: Models, prompts: Prompts) -> None:
    gumbel = only(models, prompts, CONFIG, 2)
    plain = only(models, prompts, dataclasses.replace(CONFIG, relaxation="probabilities"), 2)
    assert torch.equal(gumbel.part.rollout.tokens, plain.part.rollout.tokens)
    assert plain.loss.item() == pytest.approx(gumbel.loss.item(), rel=1e-5)
    assert torch.allclose(plain.soft, (plain.log_p[:, :25] / 0.7).softmax(1), atol=1e-6)
    assert not torch.allclose(gradients(models, plain.loss)[-1], gradients(models, gumbel.loss)[-1])


def test_arms_share_noise_and_samples_until_their_policies_part(models: Models, prompts: Prompts) -> None:
    """Another reward, weight or temperature draws the same roll-out; another step or seed does not."""
    base = only(models, prompts, CONFIG, 1).part.rollout.tokens
    for change in (
        {"beta": 9.0},
        {"reward": "smoothed_ce"},
        {"tau": (2.0,)},
        {"content_weight": 0.0},
        {"relaxation": "probabilities"},
    ):
        assert torch.equal(base, only(models, prompts, dataclasses.replace(CONFIG, **change), 1).part.rollout.tokens)
    for other in (
        only(models, prompts, CONFIG, 2),
        only(models, prompts, dataclasses.replace(CONFIG, seed=6), 1),
    ):
        assert base.shape != other.part.rollout.tokens.shape or not torch.equal(base, other.part.rollout.tokens)


def test_micro_batches_are_the_same_mathematics(
    models: Models, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row or all at once: the same samples, losses and gradient; rows are sorted by length."""
    whole = only(models, prompts, CONFIG, 2)
    monkeypatch.setattr(rollouts, "MICRO", {"cpu": 1})
    single = losses(models, prompts, CONFIG, 2)
    assert [len(loss.part.rows) for loss in single] == [1, 1, 1]
    assert (
        [int(loss.part.rollout.lengths) for loss in single]
        == whole.part.rollout.lengths.tolist()
        == sorted(whole.part.rollout.lengths)
    )
    assert sum(loss.loss.item() for loss in single) == pytest.approx(whole.loss.item(), rel=1e-5)
    summed = [sum(gs) for gs in zip(*(gradients(models, loss.loss) for loss in single), strict=True)]
    for ours, expected in zip(summed, gradients(models, whole.loss), strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)
    together, apart = (
        merge([(loss.part.rows, loss.values) for loss in batch_losses]) for batch_losses in ([whole], single)
    )
    for name in together:
        assert torch.allclose(together[name], apart[name], rtol=1e-5)


def test_merged_values_come_back_in_the_batchs_order() -> None:
    lengths = torch.tensor([5, 2, 9, 2, 7, 1, 8, 3, 4, 6])
    parts = [(rows, {"length": lengths[rows]}) for rows in micro_batches(lengths)]
    assert [len(rows) for rows, _ in parts] == [8, 2]
    assert torch.equal(merge(parts)["length"], lengths)


def test_statistics_of_a_rollout_by_hand() -> None:
    """Two samples: lengths 3 (ended) and 2 (truncated). KL 1 nat at every position by construction."""
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([torch.e**-1, 1 - torch.e**-1])
    logits = p.clamp(min=1e-30).log().expand(2, 4, 2)
    rollout = Rollout(torch.tensor([[4, 4, 7], [5, 6, 0]]), torch.tensor([3, 2]), torch.tensor([True, False]))
    row = rollout_statistics(rollout_sums(logits, q.log().expand(2, 4, 2), rollout))
    assert row["kl_token"] == pytest.approx(1.0)
    assert row["kl_utterance"] == pytest.approx((4 + 2) / 2)
    assert row["length"] == 2.5
    assert row["cut"] == 0.5
    assert row["repetition"] == pytest.approx(1 / 3)
    assert row["entropy"] == pytest.approx(0.0, abs=1e-6)


def test_statistics_of_packed_and_full_logits_agree(models: Models, prompts: Prompts) -> None:
    """KL and entropy from the packed positions equal those from the padded logits, for every sample."""
    step = only(models, prompts, CONFIG, 2)
    step_prompts, rollout = step.part.prompts, step.part.rollout
    logits, reference = (m.logits(step_prompts.prefix, rollout.tokens) for m in (models.policy, models.reference))
    expected = rollout_sums(logits, reference, rollout)
    assert torch.allclose(step.kl, expected["kl"], atol=1e-5)
    assert torch.allclose(rollout.sums(token_entropy(step.log_p)), expected["entropy"], atol=1e-5)


def test_the_soft_tokens_stand_behind_the_hard_ones(models: Models, prompts: Prompts) -> None:
    """Distributions over the codes; at a low temperature they equal the sampled tokens, at tau 0.7 they do not."""
    for tau, alike in ((1e-6, True), (0.7, False)):
        step = only(models, prompts, dataclasses.replace(CONFIG, tau=(tau,)), 2)
        rollout = step.part.rollout
        soft = rollout.padded(step.soft)[:, :-1]
        inside = torch.arange(soft.shape[1]) < rollout.lengths[:, None]
        assert torch.allclose(soft.sum(2)[inside], torch.ones(()), atol=1e-5)
        hard = torch.nn.functional.one_hot(rollout.tokens, 25).float()
        assert bool(torch.isclose(soft, hard, atol=1e-2)[inside].all()) is alike
