"""The stage ``guided``: sample the evaluation prompts by guided decoding, as one checkpoint of a policy that is not trained.

It writes the files of the stage ``optimize``, so that scoring, judging and reports treat its cell like any other. KL is that of
the guided distribution to the ordinary SFT policy. Guidance starts from that policy or, with tag dropout, from an SFT policy
trained with it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rrpo.config import GuidedConfig, OptimizeConfig
from rrpo.models.guidance.policy import GuidedPolicy
from rrpo.models.policy import Policy
from rrpo.models.prefix_classifier import PrefixClassifier
from rrpo.optimizers.loop import evaluate, save
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.pipeline.stages import Context


def build(config: GuidedConfig, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write an empty ``curves.parquet``, ``points.parquet`` and ``samples.npz`` of step 0, and ``scalars.json``.

    Raises:
        PluginError: The guidance does not exist, or its plugin has changed.
        ValueError: The policy lacks the null tags or an emotion, or the classifier lacks an emotion.
    """
    policy = Policy.load(inputs["guided"], context.device)
    classifier = PrefixClassifier.load(inputs["classifier"], context.device) if "classifier" in inputs else None
    guided = GuidedPolicy(policy, config.guidance, classifier).requires_grad_(False).eval()
    models = replace(Models.load(inputs, context.device, context.micro), policy=guided)
    prompts = Prompts.load(inputs["eval_prompts"], models)
    settings = OptimizeConfig(steps=0, final_prompts=config.prompts, eval_prompts=config.batch, seed=config.seed)
    row, samples = evaluate(models, prompts, settings, 0)
    save(out, [{"step": 0} | row], [samples])
