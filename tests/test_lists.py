"""Components and judges are named where they are declared, and nowhere else in what plans, reports and searches."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ablations.components import COMPONENTS
from ablations.judges import BUILT_IN

ROOT = Path(__file__).parent.parent
DECLARING = {"ablations/components.py", "ablations/judges.py", "ablations/tracking/records.py"}
"""The lists, and the schema of a record."""
OTHER_TESTS = {
    *("reports/listening_test.py", "reports/ratings.py", "reports/opinion.py"),
    *("ablations/execution/user_data.py", "ablations/execution/request.py"),
}
"""Where ``test`` is a listening test, or a part of a corpus."""


def strings(path: Path) -> list[tuple[int, str]]:
    """Line and text of every string constant of a file that is no docstring, parts of f-strings among them."""
    tree = ast.parse(path.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone]
    return [(node.lineno, node.value) for node in found if isinstance(node.value, str)]


def names_one(text: str, other: bool) -> bool:
    """Whether a text is a name of one or a judge's column, or holds a component's label or a judge in backticks."""
    judges = [judge.name for judge in BUILT_IN if not (other and text == judge.name)]
    exact = {component.name for component in COMPONENTS} | set(judges)
    columns = rf"({'|'.join(judges)})_(accuracy|logprob|hack_rate)"
    labels = rf"\b({'|'.join(component.label for component in COMPONENTS)})\b|`({'|'.join(judges)})`"
    return text in exact or bool(re.fullmatch(columns, text)) or bool(re.search(labels, text))


@pytest.mark.parametrize("package", ["ablations", "reports", "studies"])
def test_nothing_but_the_lists_names_a_component_or_a_judge(package: str):
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in DECLARING:
            found += [(name, n, text) for n, text in strings(path) if names_one(text, name in OTHER_TESTS)]
    assert found == []
