"""The version of every kind of stage. Raise it when a change of source changes what the stage computes.

``tests/rrpo/test_versions.py`` compares the source of each stage with the digest stored beside its version, and fails
until one of the two is brought up to date.
"""

VERSIONS: dict[str, int] = {
    "speech": 1,
    "codec": 1,
    "recogniser": 1,
    "judge": 1,
    "pretrain": 1,
    "finetune": 1,
    "sft": 1,
    "optimize": 1,
    "score": 1,
    "examine": 1,
    "prompts": 1,
}
