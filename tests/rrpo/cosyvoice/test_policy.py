"""CosyVoice2's language model: the policy contract, an independent forward pass, loading and saving, low-rank updates."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from rrpo.corpus.prompts import Prompt
from rrpo.cosyvoice import layout, standin
from rrpo.cosyvoice.config import LoraConfig
from rrpo.cosyvoice.lora import adapt, save_adapter, updates
from rrpo.cosyvoice.policy import BLANK, CosyVoice2Policy
from rrpo.cosyvoice.text import SPECIALS
from rrpo.errors import InputError
from rrpo.models.protocols import TokenPolicy
from rrpo.models.transformer import fuse, parallel
from rrpo.seeding import uniform
from rrpo.testing.policies import PolicyContract


def prompt(text: str, emotion: str) -> Prompt:
    return Prompt(id=text, text=text, phones=tuple(text), speaker="anna", emotion=emotion)


PROMPTS = [
    prompt("the cat", "angry"),
    prompt("今天天气很好!", "happy"),
    prompt("go", "sad"),
    prompt("a mat, a cat", "sad"),
]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.write(tmp_path_factory.mktemp("cosyvoice2"), eos=6.0)


@pytest.fixture
def policy(release: Path) -> CosyVoice2Policy:
    return CosyVoice2Policy.load(release, max_tokens=12)


class TestCosyVoice2Policy(PolicyContract):
    prompts: ClassVar[list[Prompt]] = PROMPTS

    @pytest.fixture
    def policy(self, release: Path) -> TokenPolicy:
        return CosyVoice2Policy.load(release, max_tokens=12)


def test_a_saved_policy_loads_unchanged(policy: CosyVoice2Policy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    loaded, prefix = CosyVoice2Policy.load(tmp_path), policy.prompt_ids(PROMPTS[:1])
    assert torch.equal(loaded.prompt_ids(PROMPTS[:1]), prefix)
    assert torch.equal(loaded.logits(prefix, torch.tensor([[5, 9]])), policy.logits(prefix, torch.tensor([[5, 9]])))


def test_full_size_has_295_tensors_and_the_releases_bytes() -> None:
    """2,023,316,821 bytes, of which about 100 kB are file overhead; lm_head shares the storage of the embedding."""
    shapes = layout.expected_shapes(standin.FULL)
    assert len(shapes) == 295
    numbers = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name != layout.HEAD)
    assert 0 < 2_023_316_821 - 4 * numbers < 200_000


def documented(release: Path, text: str, tokens: list[int]) -> Tensor:
    """Return logits ``[N + 1, 6562]`` by the library's model on ``[sos][text][task_id][speech]``, from the tensors of the
    file."""
    stored = torch.load(release / "llm.pt", weights_only=True)
    llm = Qwen2ForCausalLM(Qwen2Config.from_pretrained(release / BLANK)).eval()
    llm.load_state_dict({k.removeprefix("llm.model."): v for k, v in stored.items() if k.startswith("llm.model.")})
    tokenizer = AutoTokenizer.from_pretrained(release / BLANK)
    tokenizer.add_tokens(list(SPECIALS), special_tokens=True)
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0]
    rows = [
        stored["llm_embedding.weight"][:1],
        stored["llm.model.model.embed_tokens.weight"][ids],
        stored["llm_embedding.weight"][1:],
        stored["speech_embedding.weight"][torch.tensor(tokens)],
    ]
    with torch.no_grad():
        hidden = llm(inputs_embeds=torch.cat(rows)[None], output_hidden_states=True).hidden_states[-1][0]
    logits = hidden @ stored["llm_decoder.weight"].T + stored["llm_decoder.bias"]
    return logits[1 + len(ids) :, : layout.CODES + 1]


def test_logits_are_those_of_an_independent_forward_of_the_documented_sequence(
    release: Path, policy: CosyVoice2Policy
) -> None:
    """The task_id position predicts the first token; the only difference is eos, which is never first."""
    tokens = [[5, 6560, 17], [1, 2, 3]]
    prompts = [PROMPTS[0], PROMPTS[1]]
    ours = policy.logits(policy.prompt_ids(prompts), torch.tensor(tokens)).detach()
    for row, request in enumerate(prompts):
        text = f"Your emotion is {request.emotion}<|endofprompt|>{request.text}"
        theirs = documented(release, text, tokens[row])
        assert theirs.shape == (4, 6562)
        assert torch.allclose(ours[row, 1:], theirs[1:], atol=1e-4)
        assert torch.allclose(ours[row, 0, :-1], theirs[0, :-1], atol=1e-4)
        assert ours[row, 0, -1] < -1e8


def test_the_end_of_the_prompt_is_one_token_and_exclamation_marks_are_no_padding(policy: CosyVoice2Policy) -> None:
    """Qwen's tokenizer gives ``!`` the id 0."""
    ids = policy.prompt_ids([prompt("!", "sad")])[0]
    assert ids[-2:].tolist() == [policy.tokenizer.end_of_prompt + 1, 1]
    assert policy.text_lengths(policy.prompt_ids([prompt("!", "sad"), prompt("the cat sat!", "sad")]))[0] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_untouched_file_goes_round_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    """Names, order, types, and the unused head, which still shares the memory of the embedding."""
    source = standin.write(tmp_path / "in", dtype=dtype)
    stored = torch.load(source / "llm.pt", weights_only=True)
    torch.save({**stored, "epoch": 3, "step": 7}, source / "llm.pt")  # as upstream's trainer leaves them
    CosyVoice2Policy.load(source).save(tmp_path / "out")
    written = torch.load(tmp_path / "out" / "llm.pt", weights_only=True)
    assert (
        list(written)
        == list(stored)
        == list(layout.expected_shapes(json.loads((source / BLANK / "config.json").read_text())))
    )
    for name, tensor in stored.items():
        assert written[name].dtype == dtype
        assert torch.equal(written[name], tensor)
    assert written[layout.HEAD].data_ptr() == written[layout.EMBEDDING].data_ptr()


def test_a_trained_embedding_is_written_under_both_names(policy: CosyVoice2Policy) -> None:
    """Upstream loads lm_head last into the tied weight: an outdated head would undo the training."""
    with torch.no_grad():
        policy.llm.embed_tokens.weight.add_(1.0)
    written = policy.tensors()
    assert torch.equal(written[layout.HEAD], written[layout.EMBEDDING])
    assert torch.equal(written[layout.HEAD], policy.llm.embed_tokens.weight)


def altered(release: Path, folder: Path, change: dict[str, Tensor | None]) -> Path:
    """Return a copy with tensors replaced, or removed if None."""
    (folder / BLANK).mkdir(parents=True)
    for path in (release / BLANK).iterdir():
        (folder / BLANK / path.name).write_bytes(path.read_bytes())
    stored = {**torch.load(release / "llm.pt", weights_only=True), **change}
    torch.save({name: tensor for name, tensor in stored.items() if tensor is not None}, folder / "llm.pt")
    return folder


def test_all_that_is_wrong_with_a_file_is_listed(release: Path, tmp_path: Path) -> None:
    bad = altered(
        release,
        tmp_path,
        {
            "llm.model.model.norm.weight": None,
            "llm.model.model.layers.1.mlp.up_proj.weight": None,
            "llm_decoder.bias": torch.zeros(10),
            "something.else": torch.zeros(2, 3),
        },
    )
    with pytest.raises(InputError) as caught:
        CosyVoice2Policy.load(bad)
    message = str(caught.value)
    assert "missing: llm.model.model.norm.weight [32]" in message
    assert "missing: llm.model.model.layers.1.mlp.up_proj.weight [48, 32]" in message
    assert "shape of llm_decoder.bias: [10] instead of [6564]" in message
    assert "unknown: something.else [2, 3]" in message
    assert "fix:" in message


def test_cosyvoice3_is_refused_by_its_layout_and_by_its_files(release: Path, tmp_path: Path) -> None:
    rows = torch.zeros(6561 + 200, 32)
    third = altered(
        release,
        tmp_path / "a",
        {
            "llm_embedding.weight": None,
            "llm_decoder.bias": None,
            "llm_decoder.weight": rows,
            "speech_embedding.weight": rows,
        },
    )
    with pytest.raises(InputError, match=r"CosyVoice3.*\n.*6761 rows"):
        CosyVoice2Policy.load(third)
    (third / "llm.pt").rename(third / "llm.rl.pt")
    with pytest.raises(InputError, match=r"CosyVoice3.*\n.*llm.rl.pt"):
        CosyVoice2Policy.load(third)


def test_a_second_embedding_in_a_tied_model_is_refused_and_in_another_kept(release: Path, tmp_path: Path) -> None:
    head = torch.load(release / "llm.pt", weights_only=True)[layout.HEAD] + 1
    folder = altered(release, tmp_path / "a", {layout.HEAD: head})
    with pytest.raises(InputError, match="two different text embeddings"):
        CosyVoice2Policy.load(folder)
    config = json.loads((folder / BLANK / "config.json").read_text())
    (folder / BLANK / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert torch.equal(CosyVoice2Policy.load(folder).tensors()[layout.HEAD], head)


def test_missing_files_and_files_that_are_no_weights_are_told(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no llm.pt and no CosyVoice-BlankEN/config.json"):
        CosyVoice2Policy.load(tmp_path)
    folder = altered(release, tmp_path / "a", {})
    (folder / "llm.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="cannot be read as weights"):
        CosyVoice2Policy.load(folder)
    (folder / "llm.pt").write_bytes((release / "llm.pt").read_bytes()[:-1000])
    with pytest.raises(InputError, match="cannot be read as weights"):
        CosyVoice2Policy.load(folder)
    for content, message in (
        ("{", "cannot be read"),
        ("[]", "as a JSON object"),
        ('{"vocab_size": "8"}', "vocab_size '8'"),
    ):
        (folder / BLANK / "config.json").write_text(content)
        with pytest.raises(InputError, match=message):
            CosyVoice2Policy.load(folder)
    with pytest.raises(ValueError, match="unknown precision"):
        CosyVoice2Policy.load(release, precision="fp8")


def test_bf16_is_close_to_fp32_and_has_gradients(release: Path, policy: CosyVoice2Policy) -> None:
    half = CosyVoice2Policy.load(release, max_tokens=12, precision="bf16")
    prefix, tokens = policy.prompt_ids(PROMPTS), torch.tensor([[1, 2, 3]] * len(PROMPTS))
    ours, theirs = half.logits(prefix, tokens), policy.logits(prefix, tokens)
    assert ours.dtype == torch.float32
    assert not torch.equal(ours, theirs)
    assert torch.allclose(ours[:, 1:], theirs[:, 1:], atol=0.1)
    ours[..., 0].sum().backward()
    assert half.llm.layers[0].self_attn.q_proj.weight.grad is not None
    noise = uniform((12, len(prefix)), 0, "bf16")
    assert half.sample(prefix, noise).lengths.min() >= 1


class TestLora:
    def test_it_starts_as_the_policy_and_trains_the_updates_alone(self, policy: CosyVoice2Policy) -> None:
        prefix, tokens = policy.prompt_ids(PROMPTS), torch.tensor([[1, 2, 3]] * len(PROMPTS))
        before = policy.logits(prefix, tokens)
        adapt(policy, LoraConfig(rank=2))
        assert torch.equal(policy.logits(prefix, tokens), before)
        trained = [p for p in policy.parameters() if p.requires_grad]
        assert sum(p.numel() for p in trained) == 2 * 2 * sum((32 + 32, 32 + 16, 32 + 16, 32 + 32, 3 * (32 + 48)))
        policy.logits(prefix, tokens)[..., 0].sum().backward()
        assert all(p.grad is not None for p in trained)

    def test_merged_weights_are_saved_and_the_rest_stays(
        self, release: Path, policy: CosyVoice2Policy, tmp_path: Path
    ) -> None:
        """``W + (alpha / r) B A`` by hand, for one layer; a file without updates gives the same logits."""
        adapt(policy, LoraConfig(rank=2, alpha=6.0, targets=("q_proj",)))
        adapters = dict(updates(policy))
        with torch.no_grad():
            for update in adapters.values():
                update.B.normal_()
        policy.save(tmp_path)
        stored = torch.load(release / "llm.pt", weights_only=True)
        written = torch.load(tmp_path / "llm.pt", weights_only=True)
        name = "llm.model.model.layers.1.self_attn.q_proj.weight"
        update = adapters["layers.1.self_attn.q_proj"]
        assert torch.allclose(written[name], stored[name] + 3.0 * update.B @ update.A, atol=1e-6)
        assert all(torch.equal(written[name], stored[name]) for name in stored if "q_proj.weight" not in name)
        prefix, tokens = policy.prompt_ids(PROMPTS), torch.tensor([[1, 2, 3]] * len(PROMPTS))
        loaded = CosyVoice2Policy.load(tmp_path)
        assert torch.allclose(loaded.logits(prefix, tokens), policy.logits(prefix, tokens), atol=1e-5)

    def test_an_update_below_half_a_step_of_bfloat16_is_not_lost(self, release: Path) -> None:
        """``W + s B A`` is rounded once, where it is used, and not W before the sum: weights near a rounding boundary move."""
        policy = CosyVoice2Policy.load(release, precision="bf16")
        weight = policy.llm.layers[0].self_attn.o_proj.weight.detach().clone()
        adapt(policy, LoraConfig(rank=2, alpha=6.0, targets=("o_proj",)))
        update = dict(updates(policy))["layers.0.self_attn.o_proj"]
        with torch.no_grad():
            update.B.fill_(1e-4)
        with torch.no_grad(), policy.computing():
            used = fuse(policy.llm)[0].out
        change = 3.0 * (update.B @ update.A).detach()
        large = weight.abs() > 0.05  # a step of at least 2^-12
        assert change.abs().max() < 2**-13
        assert torch.allclose(used.float() - weight, change, atol=1e-7)
        assert not torch.equal(used.bfloat16()[large], weight.bfloat16()[large])

    def test_an_adapter_is_written_under_pefts_names(self, policy: CosyVoice2Policy, tmp_path: Path) -> None:
        from safetensors.torch import load_file

        adapt(policy, LoraConfig(rank=2, alpha=6.0, targets=("v_proj",)))
        save_adapter(policy, tmp_path)
        written = load_file(tmp_path / "adapter_model.safetensors")
        assert written["base_model.model.layers.0.self_attn.v_proj.lora_A.weight"].shape == (2, 32)
        assert written["base_model.model.layers.0.self_attn.v_proj.lora_B.weight"].shape == (16, 2)
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["target_modules"]) == (2, 6.0, ["v_proj"])

    def test_what_cannot_be_adapted_is_refused(self) -> None:
        with pytest.raises(ValueError, match="lm_head"):
            LoraConfig(targets=("lm_head",))
        with pytest.raises(ValueError, match="rank"):
            LoraConfig(rank=0)

    def test_peft_reads_the_adapter(self, release: Path, policy: CosyVoice2Policy, tmp_path: Path) -> None:
        """The package's forward pass of the release's Qwen2 model with the adapter equals ours."""
        import peft  # after rrpo, with which torchaudio needs no libraries of CUDA

        adapt(policy, LoraConfig(rank=2, alpha=6.0))
        with torch.no_grad():
            for _, update in updates(policy):
                update.B.normal_()
        save_adapter(policy, tmp_path)
        plain = CosyVoice2Policy.load(release).llm
        theirs = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
        x = torch.randn(1, 5, 32)
        with torch.no_grad():
            ours = parallel(policy.llm, x[0], torch.arange(5), [5], torch.arange(5))
            assert torch.allclose(ours, theirs(inputs_embeds=x).last_hidden_state[0], atol=1e-4)
            assert not torch.allclose(ours, plain_forward(release, x), atol=1e-1)


def plain_forward(release: Path, x: Tensor) -> Tensor:
    llm = CosyVoice2Policy.load(release).llm
    return parallel(llm, x[0], torch.arange(5), [5], torch.arange(5))
