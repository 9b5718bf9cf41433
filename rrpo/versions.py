"""The version of every kind of stage. Raise it when a change of source changes what the stage computes.

``tests/rrpo/test_versions.py`` compares the source of each stage with the digest stored beside its version, and fails
until one of the two is brought up to date.
"""

VERSIONS: dict[str, int] = {
    "speech": 4,
    "voices": 4,
    "codec": 3,
    "recogniser": 2,
    "judge": 3,
    "pretrain": 1,
    "finetune": 1,
    "base": 2,
    "sft": 3,
    "optimize": 6,
    "score": 5,
    "yardsticks": 2,
    "diagnose": 4,
    "transfer": 2,
    "transcribe": 1,
    "examine": 1,
    "prompts": 2,
    "phonetic_judge": 3,
    "validation": 8,
}
