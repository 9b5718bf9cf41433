"""The kinds of stages. Raise the version of a kind when a source change alters what its stages compute.

``tests/rrpo/pipeline/test_versions.py`` compares the source of each stage with the digest stored beside its version, and fails
until the version or the digest is updated.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of stage."""

    version: int
    """Part of the keys of its stages."""
    build: str
    """``module:function`` that builds them."""
    description: str
    """What such a stage does, for plans."""


KINDS: dict[str, Kind] = {
    "speech": Kind(6, "rrpo.corpus.features:build", "utterances of a split, as log-mel frames"),
    "voices": Kind(5, "rrpo.corpus.second:build", "test speech by another synthesizer"),
    "codec": Kind(5, "rrpo.training.codec:build", "training of the codec"),
    "recogniser": Kind(4, "rrpo.judges.recogniser:build", "training of a phone recognizer"),
    "judge": Kind(5, "rrpo.judges.emotion:build", "training of an emotion judge"),
    "pretrain": Kind(3, "rrpo.training.pretrain:build", "reward model: pre-training"),
    "finetune": Kind(3, "rrpo.training.finetune:build", "reward model: fine-tuning, with the arm's regularizers"),
    "combine": Kind(1, "rrpo.training.combine:build", "reward model: ensemble or averaged weights"),
    "mine": Kind(1, "rrpo.judges.mine:build", "reward model: search for samples that fool it, to fine-tune on them"),
    "base": Kind(4, "rrpo.training.sft:build", "policy: training of the base policy"),
    "sft": Kind(5, "rrpo.training.sft:build", "policy: supervised fine-tuning (SFT)"),
    "optimize": Kind(9, "rrpo.optimizers.loop:build", "policy: optimization, and evaluation by the val judge"),
    "cosyvoice_start": Kind(2, "rrpo.cosyvoice.run:build_start", "CosyVoice2: SFT and reward model of a seed"),
    "cosyvoice": Kind(2, "rrpo.cosyvoice.run:build", "CosyVoice2: reward model and policy optimization of an arm"),
    "prefix_classifier": Kind(1, "rrpo.training.prefix_classifier:build", "guided decoding: training of a classifier"),
    "zero_shot": Kind(1, "rrpo.training.zero_shot:build", "guided decoding: SFT of a policy for unseen speakers"),
    "reference_probe": Kind(1, "rrpo.diagnostics.reference_probe:build", "guided decoding: content of speaker vectors"),
    "guided": Kind(1, "rrpo.optimizers.guided:build", "guided decoding: sampling of the evaluation prompts"),
    "intensity": Kind(1, "rrpo.judges.intensity:build", "measurement: emotional intensity of the samples"),
    "draws": Kind(1, "rrpo.optimizers.best_of:draw", "best-of-n: n samples of the SFT policy per prompt"),
    "best_of_n": Kind(1, "rrpo.optimizers.best_of:build", "best-of-n: selection by a reward model"),
    "score": Kind(6, "rrpo.judges.score:build", "measurement: samples by the test judge; clean success"),
    "assess": Kind(1, "rrpo.judges.score:assess", "measurement: samples by the val judge"),
    "vocode": Kind(1, "rrpo.judges.listeners:vocode", "waveforms of some samples, for the optional measurements"),
    "speakers": Kind(1, "rrpo.judges.yardsticks:speakers", "mean voices of the speakers"),
    "predictor": Kind(1, "rrpo.judges.yardsticks:predictor", "choice of a predictor of naturalness"),
    "phonetics": Kind(1, "rrpo.judges.listeners:phonetics", "measurement: third judge and prosody (Praat)"),
    "voice": Kind(1, "rrpo.judges.listeners:voice", "measurement: speaker similarity"),
    "naturalness": Kind(1, "rrpo.judges.listeners:naturalness", "measurement: predicted naturalness (DNSMOS, PLCMOS)"),
    "content": Kind(1, "rrpo.judges.listeners:content", "measurement: phone errors by a published recognizer"),
    "judge_training": Kind(1, "rrpo.judges.opinion:train", "training of a plugin's judge"),
    "opinion": Kind(1, "rrpo.judges.opinion:build", "measurement: samples by a plugin's judge"),
    "transfer": Kind(3, "rrpo.judges.transfer:build", "measurement: each arm's samples by other arms' reward models"),
    "examine": Kind(2, "rrpo.diagnostics.examine:build", "reward model: accuracy and manipulation checks"),
    "fidelity": Kind(1, "rrpo.diagnostics.fidelity:build", "reward model: gradient fidelity"),
    "gradients": Kind(4, "rrpo.diagnostics.gradients:build", "comparison of the optimizers' gradients"),
    "examine_set": Kind(1, "rrpo.diagnostics.examine:build_set", "reward model: accuracy on other synthetic speech"),
    "measure": Kind(1, "rrpo.diagnostics.measure:build", "reward model: manipulation check of a plugin's regularizer"),
    "recognition": Kind(1, "rrpo.diagnostics.examine:build_test_set", "reward model: accuracy on a test set of yours"),
    "prompts": Kind(3, "rrpo.corpus.prompts:build", "prompts of the policy"),
    "phonetic_judge": Kind(5, "rrpo.judges.phonetic_judge:build", "training of the third judge"),
    "validation": Kind(11, "rrpo.validation.stage:build", "a section of the world card"),
}
VERSIONS = {name: kind.version for name, kind in KINDS.items()}
