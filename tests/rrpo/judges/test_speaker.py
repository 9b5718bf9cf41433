"""The published encoder's weights, on voices of this world."""

import numpy as np
import pytest
import torch

from rrpo.corpus.config import SplitConfig, WorldConfig
from rrpo.corpus.features import wave_of
from rrpo.corpus.splits import draw_split
from rrpo.judges import speaker
from rrpo.packages import present

pytestmark = pytest.mark.skipif(not present("resemblyzer"), reason="resemblyzer is not installed")


@pytest.fixture(scope="module")
def spoken() -> tuple[list[np.ndarray], np.ndarray]:
    split = SplitConfig(name="voices", size=24, speakers="policy", texts="judge_heldout")
    utterances = draw_split(WorldConfig(policy_speakers=3), split)
    return [wave_of(u, speaker.RATE).numpy() for u in utterances], np.array([u.speaker for u in utterances])


def test_a_voice_is_nearer_to_itself_than_to_others(spoken: tuple[list[np.ndarray], np.ndarray]) -> None:
    waves, names = spoken
    vectors = speaker.embeddings(waves)
    assert vectors.shape == (24, speaker.SIZE)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (names[similarity.argmax(1)] == names).mean() >= 0.9  # chance: a third


def test_level_and_neighbours_do_not_matter_and_short_waves_pass(spoken: tuple[list[np.ndarray], np.ndarray]) -> None:
    waves, _ = spoken
    loud = waves[0] / np.sqrt(np.mean(waves[0] ** 2)) * 10 ** (speaker.LEVEL / 20)
    both = speaker.embeddings([loud, 0.1 * loud])
    assert both[0] @ both[1] > 0.999
    assert np.allclose(speaker.embeddings(waves[:3])[2], speaker.embeddings(waves[2:3])[0], atol=1e-5)
    assert np.isfinite(speaker.embeddings([np.zeros(0), np.zeros(320), waves[0][:800]])).all()
    joined = np.concatenate(waves[:4])  # several partial utterances
    assert len(speaker._partials(joined.astype(np.float32))) == pytest.approx(
        len(joined) / speaker.RATE * 1.3 - 1, abs=1.5
    )


def test_the_network_is_the_published_one() -> None:
    """Unit vectors without negative components that differ between voices: the weights were loaded, not random."""
    torch.manual_seed(0)
    noise = speaker.embeddings([np.random.default_rng(k).normal(0, 0.1, 16000) for k in range(2)])
    assert (noise >= 0).all()
    assert noise[0] @ noise[1] > 0.95, "two draws of white noise are one voice"
