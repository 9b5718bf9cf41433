"""The version of every kind of stage. Raise it when a change of source changes what the stage computes.

``tests/rrpo/test_versions.py`` compares the source of each stage with the digest stored beside its version, and fails
until one of the two is brought up to date.
"""

VERSIONS: dict[str, int] = {
    "speech": 5,
    "voices": 4,
    "codec": 4,
    "recogniser": 3,
    "judge": 4,
    "pretrain": 2,
    "finetune": 2,
    "base": 3,
    "sft": 4,
    "optimize": 7,
    "score": 5,
    "vocode": 1,
    "speakers": 1,
    "predictor": 1,
    "phonetics": 1,
    "voice": 1,
    "naturalness": 1,
    "transfer": 2,
    "transcribe": 1,
    "examine": 1,
    "fidelity": 1,
    "examine_set": 1,
    "prompts": 2,
    "phonetic_judge": 3,
    "validation": 9,
}
