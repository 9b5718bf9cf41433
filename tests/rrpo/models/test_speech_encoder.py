"""Reward models on pre-trained speech encoders; tiny encoders of the same classes replace the published weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from ablations.execution.options import Options
from ablations.execution.request import request
from ablations.execution.user_data import with_encoder
from rrpo.config import RegularizerConfig
from rrpo.corpus import features
from rrpo.corpus.config import AudioConfig, SpeechConfig, SplitConfig
from rrpo.corpus.intake import check_manifest
from rrpo.corpus.manifest import read_manifest
from rrpo.diagnostics import examine
from rrpo.errors import InputError
from rrpo.judges.config import ExamineConfig, RecognitionConfig
from rrpo.models.reward_model import RewardModel
from rrpo.models.signals import WAVEFORM
from rrpo.pipeline.stages import Context
from rrpo.profiles import SMOKE
from rrpo.regularizers.energy_mixup import EnergyMixup
from rrpo.regularizers.objective import robust_loss
from rrpo.testing.corpora import write_tone
from rrpo.training import finetune, pretrain

KINDS = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": (WavLMConfig, WavLMModel),
    "hubert": (HubertConfig, HubertModel),
}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
HOP = AudioConfig().hop


def encoder(folder: Path, kind: str = "wav2vec2", **sizes: object) -> Path:
    config, model = KINDS[kind]
    torch.manual_seed(0)
    model(config(**SIZES, **sizes)).save_pretrained(folder)
    return folder


def made(folder: Path, kind: str = "wav2vec2", *, tuned: bool = False, **sizes: object) -> RewardModel:
    profile = with_encoder(SMOKE, encoder(folder, kind, **sizes), tuned=tuned)
    torch.manual_seed(1)
    return RewardModel.make(profile.pretrain.model, ("angry", "happy"), AudioConfig())


def test_an_encoder_that_was_moved_is_missed_until_a_link_leads_to_it(tmp_path: Path) -> None:
    made(tmp_path / "encoder").save(tmp_path)
    (tmp_path / "encoder").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"not where it was\n  got: .*encoder\n  fix: move the folder back"):
        RewardModel.load(tmp_path)
    (tmp_path / "encoder").symlink_to("elsewhere")
    assert RewardModel.load(tmp_path).emotions == ("angry", "happy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_and_neighbours_change_nothing(tmp_path: Path, kind: str, norm: str) -> None:
    model = made(tmp_path, kind, feat_extract_norm=norm, conv_bias=norm == "layer").eval()
    F = torch.randn(2, 20, HOP)
    alone = model(F[:1, :9], torch.tensor([9]))
    together = model(torch.cat([F[:1], torch.randn(1, 20, HOP)]), torch.tensor([9, 20]))
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=0)
    h, mask = model.encode(F, torch.tensor([9, 20]))
    assert h.shape[2] == 16
    assert not h[0, int(mask[0].sum()) :].any()
    assert torch.isfinite(model(F, torch.tensor([0, 1]))).all(), "shorter than one window"


def test_the_hidden_states_are_the_encoders(tmp_path: Path) -> None:
    """For a normalized utterance, the output equals that of the encoder class."""
    model = made(tmp_path).eval()
    F = torch.randn(1, 20, HOP)
    wave = F.flatten(1)
    wave = (wave - wave.mean()) / (wave.var(unbiased=False) + 1e-7).sqrt()
    expected = Wav2Vec2Model.from_pretrained(tmp_path).eval()(wave).last_hidden_state
    torch.testing.assert_close(model.encode(F, torch.tensor([20]))[0], expected)


@pytest.mark.parametrize("tuned", [False, True])
def test_only_tuned_parts_train_and_saving_keeps_all_weights(tmp_path: Path, tuned: bool) -> None:
    model = made(tmp_path / "encoder", tuned=tuned).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    F, lengths, y = torch.randn(4, 20, HOP), torch.tensor([20, 15, 12, 20]), torch.eye(2)[[0, 1, 0, 1]]
    terms = robust_loss(model, F, lengths, y, RegularizerConfig(), seed=0, step=0)
    assert terms["lambda"] > 0
    assert terms["l_adv"] > terms["l_emo"]
    terms["loss"].backward()
    torch.optim.Adam(trained, lr=0.1).step()
    moved = {
        name.split(".")[0] + "." + name.split(".")[1]
        for name, v in model.state_dict().items()
        if not v.equal(before[name])
    }
    assert ("speech.encoder" in moved) is tuned
    assert "speech.feature_extractor" not in moved
    assert "head.weight" in moved
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    again = RewardModel.load(tmp_path / "saved")
    assert torch.equal(again(F, lengths), model.eval()(F, lengths))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not again.training


def test_energy_mixup_adds_waveforms() -> None:
    """Host of ones, partner of twos: the segment is 1 + sqrt(10^(r/10)), and λ as Eq. 3 says."""
    F = torch.ones(2, 8, HOP) * torch.tensor([1.0, 2.0])[:, None, None]
    draws = torch.tensor([[0.0, 0.0, 0.999, 0.5, 0.0, 0.0]] * 2)
    mixup = EnergyMixup(mix_probability=1.0, mix_db_low=6.0, mix_db_high=6.0)
    mixture = mixup.mixture(F, torch.tensor([8, 8]), draws, 1e-6, WAVEFORM)
    gain = 10 ** (6 / 20)
    torch.testing.assert_close(mixture.F[0, :4], torch.full((4, HOP), 1 + gain))
    assert mixture.F[0, 4:].eq(1).all()
    expected = 4 / 8 * gain**2 / (1 + gain**2)
    torch.testing.assert_close(mixture.weight, torch.full((2,), expected))
    silent = mixup.mixture(F * torch.tensor([0.0, 1.0])[:, None, None], torch.tensor([8, 8]), draws, 1e-6, WAVEFORM)
    assert silent.weight.eq(0).all()


def test_the_stages_train_and_examine_it_on_recordings(tmp_path: Path) -> None:
    """Low and high tones are distinguished; all measures are finite."""
    lines = []
    for index in range(24):
        write_tone(tmp_path / f"{index}.wav", (200 if index % 2 else 2000) + 10 * index)
        row = {"audio": f"{index}.wav", "text": "a", "phones": ["a"], "speaker": "s", "language": "en"}
        lines.append(json.dumps(row | {"emotion": ("angry", "happy")[index % 2]}))
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    manifest = check_manifest(tmp_path / "m.jsonl", read_manifest(tmp_path / "m.jsonl", None), SMOKE.world.audio)
    split = SplitConfig(name="own", size=0, manifest=manifest)
    inputs = {name: tmp_path / name for name in ("speech", "pretrain", "finetune", "examine", "heard")}
    for folder in inputs.values():
        folder.mkdir()
    features.build(SpeechConfig(world=SMOKE.world, split=split), {}, inputs["speech"], Context())
    profile = with_encoder(SMOKE, encoder(tmp_path / "encoder"), tuned=True)
    config = pretrain.PretrainConfig(steps=40, batch=8, lr=3e-3, model=profile.pretrain.model)
    none = {"speech": inputs["speech"], "codec": tmp_path}
    pretrain.build(config, none, inputs["pretrain"], Context())
    robust = finetune.FinetuneConfig(steps=2, batch=8)
    finetune.build(robust, none | {"model": inputs["pretrain"]}, inputs["finetune"], Context())
    examine_inputs = {"model": inputs["finetune"], "rm_valid": inputs["speech"]}
    examine.build(ExamineConfig(interpolation_pairs=4, pgd_steps=2), examine_inputs, inputs["examine"], Context())
    scalars = json.loads((inputs["examine"] / "scalars.json").read_text())
    assert scalars["rm_accuracy_valid"] > 0.8
    assert all(torch.isfinite(torch.tensor(value)) for value in scalars.values())
    recognition_inputs = {"model": inputs["finetune"], "speech": inputs["speech"]}
    examine.build_test_set(RecognitionConfig(name="own"), recognition_inputs, inputs["heard"], Context())
    assert json.loads((inputs["heard"] / "scalars.json").read_text())["rm_ua_own"] == pytest.approx(
        scalars["rm_accuracy_valid"]
    )


def test_a_grid_of_reward_models_takes_it_and_others_refuse(tmp_path: Path) -> None:
    options = {"profile": "smoke", "seeds": 1, "device": "cpu", "workers": 1, "runs_dir": tmp_path / "runs"}
    folder = encoder(tmp_path / "encoder")
    frozen, tuned, plain = (
        request(Options(grid="rm", arms="rrpo", **options, **extra)).cells[0]
        for extra in ({"encoder": folder}, {"encoder": folder, "tune_encoder": True}, {})
    )
    assert len({cell.hash for cell in (frozen, tuned, plain)}) == 3
    assert "fidelity" in plain.stages
    assert "fidelity" not in frozen.stages
    moved = folder.rename(tmp_path / "moved")
    assert request(Options(grid="rm", arms="rrpo", **options, encoder=moved)).cells[0].hash == frozen.hash
    with pytest.raises(InputError, match="--grid rm"):
        request(Options(grid="smoke", **options, encoder=moved))
    with pytest.raises(InputError, match="contains no speech encoder"):
        with_encoder(SMOKE, tmp_path / "none", tuned=False)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="got: a bert"):
        with_encoder(SMOKE, tmp_path / "bert", tuned=False)
