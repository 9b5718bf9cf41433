"""The version of every kind of stage. Raise it when a change of source changes what the stage computes.

``tests/rrpo/pipeline/test_versions.py`` compares the source of each stage with the digest stored beside its version, and fails
until one of the two is brought up to date.
"""

VERSIONS: dict[str, int] = {
    "speech": 6,
    "voices": 5,
    "codec": 5,
    "recogniser": 4,
    "judge": 5,
    "pretrain": 3,
    "finetune": 3,
    "combine": 1,
    "mine": 1,
    "base": 4,
    "sft": 5,
    "optimize": 9,
    "score": 6,
    "assess": 1,
    "vocode": 1,
    "speakers": 1,
    "predictor": 1,
    "phonetics": 1,
    "voice": 1,
    "naturalness": 1,
    "judge_training": 1,
    "opinion": 1,
    "transfer": 3,
    "examine": 2,
    "fidelity": 1,
    "examine_set": 1,
    "measure": 1,
    "recognition": 1,
    "prompts": 3,
    "phonetic_judge": 5,
    "validation": 10,
}
