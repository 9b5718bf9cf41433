"""A change of a stage's source must come with a new version, or with the word that results are unchanged.

``stage_digests.json`` holds, for each stage, its version and a digest of the source it runs: its build module and every rrpo
module below it, as syntax trees without docstrings (of config modules: their constants). When this test fails: raise the
stage's number in `rrpo.pipeline.versions` if what it computes changed, then run ``python
tests/rrpo/pipeline/test_versions.py`` to store the new digests.

Stage ``finetune`` stands for RRPO's own regularisers. Each of their controls has an entry ``finetune with NAME``, for what its
module runs beyond them, and a `Regularizer.version` of its own.
Stage ``optimize`` stands for its loop and DiffRO. Each other optimiser has an entry ``optimize by NAME``, for what its module
runs beyond them, and a `PolicyOptimizer.version` of its own.
"""

import ast
import functools
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rrpo.config import OFF, ArmConfig, GradientsConfig
from rrpo.corpus.config import ManifestConfig
from rrpo.cosyvoice.config import Source
from rrpo.cosyvoice.paper import PAPER
from rrpo.experiment import dataflow, measurements, world
from rrpo.experiment.cell import Cell
from rrpo.models.guidance import GUIDANCE
from rrpo.optimizers import OPTIMIZERS, DiffRO
from rrpo.pipeline.stages import walk
from rrpo.pipeline.versions import VERSIONS
from rrpo.plugins import Choice
from rrpo.profiles import SMOKE
from rrpo.regularizers import CONTROLS, REGULARIZERS
from rrpo.validation.sections import sections

ROOT = Path(dataflow.__file__).parents[2]
DIGESTS = Path(__file__).with_name("stage_digests.json")
INFRASTRUCTURE = {
    "rrpo",
    "rrpo.pipeline.stages",
    "rrpo.pipeline.errors",
    "rrpo.pipeline.checkpoint",
    "rrpo.pipeline.versions",
    "rrpo.plugins",
    "rrpo.torch_shim",
}
"""Not part of what a stage computes: the package's public names; and a resumed build equals an undisturbed one."""
CONFIGS = {"rrpo.config", "rrpo.corpus.config", "rrpo.judges.config", "rrpo.validation.config"}
"""Hashed by value: only what they define beside the config classes counts."""


def path_of(module: str) -> Path | None:
    base = ROOT / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            statements = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
            node.body = statements or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def described(node: object) -> str:
    """Return a syntax tree as text that is the same on all Python versions, unlike that of `ast.dump`.

    Fields without a value are omitted, because versions differ in them, and so are empty parts of f-strings, which 3.12.1 adds.
    """
    if isinstance(node, ast.JoinedStr):
        node = ast.JoinedStr(
            [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        )
    if isinstance(node, ast.AST):
        fields = [f"{name}={described(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(described, node))}]" if isinstance(node, list) else repr(node)


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    path = path_of(module)
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())) if path else ():
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rrpo"):
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in modules if path_of(name))


def closure(module: str) -> set[str]:
    seen, queue = {module}, [module]
    while queue:
        new = imports_of(queue.pop()) - seen - INFRASTRUCTURE
        seen |= new
        queue += new
    return seen


@functools.cache
def digest(module: str) -> str:
    path = path_of(module)
    assert path is not None
    tree = without_docstrings(ast.parse(path.read_text()))
    if module in CONFIGS:
        tree.body = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]  # type: ignore[attr-defined]
    return described(tree)


LOOP = closure("rrpo.optimizers.loop")
DIFFRO = closure(DiffRO.__module__)
BUILT_IN = {name: kind for name, kind in OPTIMIZERS.items() if kind.version}
"""The package's optimisers that have a version of their own."""


def digest_of(modules: set[str]) -> str:
    return hashlib.sha256("".join(digest(m) for m in sorted(modules)).encode()).hexdigest()[:16]


@functools.cache
def stage_builds() -> dict[str, str]:
    """Kind of stage -> the module that builds it."""
    cell = Cell(label="rrpo", arm=ArmConfig(), seed=0, profile=SMOKE)
    roots = [*cell.stages.values(), *sections(SMOKE, 1000).values(), world.third_judge(SMOKE)]
    roots += [measurements.listener_results(SMOKE, ArmConfig(), 0, name) for name in measurements.LISTENERS]
    roots += [measurements.examined_voices(SMOKE, ArmConfig(), 0, engine) for engine in world.SYNTHESISERS]
    soft = ArmConfig(guidance=GUIDANCE.choice("soft-label"), tag_dropout=0.1)
    roots += [dataflow.optimized(SMOKE, soft, 0), measurements.intensity(SMOKE, soft, 0)]
    roots += measurements.core(SMOKE, replace(soft, steps=0, reversal=1.0), 0, policy=True).values()
    roots.append(measurements.gradients(SMOKE, ArmConfig(), 0, 0, GradientsConfig()))
    roots.append(dataflow.best_of(SMOKE, ArmConfig(best_of=2), 0))
    roots.append(measurements.assessed(SMOKE, ArmConfig(), 0))
    roots.append(measurements.measured(SMOKE, ArmConfig(), 0, "ls"))
    own_data = replace(SMOKE, tests={"mine": ManifestConfig(digest="", path="")})
    roots.append(measurements.recognised(own_data, ArmConfig(), 0, "mine"))
    roots.append(measurements.opinion(SMOKE, ArmConfig(), 0, Choice(name="any")))
    roots.append(measurements.transferred(SMOKE, {"rrpo": ArmConfig()}, 0))
    roots.append(dataflow.reward_model(SMOKE, ArmConfig(members=2, combination="mean", rounds=1), 0))
    files = Source(digest="", path="")
    roots += dataflow.on_cosyvoice(
        replace(PAPER, model=files, corpus=files), ArmConfig(regularizers=OFF), 0, "diffro"
    ).values()
    return {stage.name: stage.build.split(":")[0] for stage in walk(*roots)}


@functools.cache
def current() -> dict[str, dict[str, object]]:
    digests: dict[str, dict[str, object]] = {
        name: {
            "version": VERSIONS[name],
            "digest": digest_of(closure(module) | (DIFFRO if name == "optimize" else set())),
        }
        for name, module in sorted(stage_builds().items())
    }
    finetune = closure("rrpo.training.finetune")
    digests |= {
        f"finetune with {name}": {
            "version": control.version,
            "digest": digest_of(closure(type(control).__module__) - finetune),
        }
        for name, control in CONTROLS.items()
    }
    return digests | {
        f"optimize by {name}": {"version": kind.version, "digest": digest_of(closure(kind.__module__) - LOOP)}
        for name, kind in BUILT_IN.items()
    }


PARTS = [*(f"finetune with {name}" for name in CONTROLS), *(f"optimize by {name}" for name in BUILT_IN)]


@pytest.mark.parametrize("name", [*sorted(VERSIONS), *PARTS])
def test_source_and_version_move_together(name: str) -> None:
    stored = json.loads(DIGESTS.read_text())
    assert current()[name] == stored.get(name), (
        f"the source of stage {name!r} changed: raise VERSIONS[{name!r}] if its results change, "
        "then run `python tests/rrpo/pipeline/test_versions.py`"
    )


def test_the_digests_do_not_depend_on_the_python_version() -> None:
    tree = ast.parse("def f(x): return f'{x}'")
    expected = (
        "Module(body=[FunctionDef(name='f', args=arguments(args=[arg(arg='x')]), body=[Return(value="
        "JoinedStr(values=[FormattedValue(value=Name(id='x', ctx=Load()), conversion=-1)]))])])"
    )
    assert described(tree) == expected
    (text,) = (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr))
    text.values.append(ast.Constant(""))
    assert described(tree) == expected


def test_controls_are_guarded_one_by_one() -> None:
    """No stage runs the files of controls that are not chosen; every control has a number, which is in its keys."""
    modules = {type(control).__module__ for control in CONTROLS.values()}
    for name, module in stage_builds().items():
        assert not modules & closure(module), name
    packaged = {type(regularizer).__module__ for regularizer in REGULARIZERS.values() if not regularizer.paper}
    assert modules >= {module for module in packaged if module.startswith("rrpo.")}
    for name, control in CONTROLS.items():
        assert REGULARIZERS.choice(name).source == f"version {control.version}" != "version 0"


def test_optimisers_are_guarded_one_by_one() -> None:
    """Neither the loop nor DiffRO runs the files of others; every optimiser of the package has a number, which is in its keys."""
    assert {"reinforce", "grpo"} <= BUILT_IN.keys()
    modules = {kind.__module__ for kind in BUILT_IN.values()}
    assert not modules & (LOOP | DIFFRO)
    assert "rrpo.optimizers.diffro" in DIFFRO - LOOP
    for name, kind in BUILT_IN.items():
        assert kind.__module__ in closure(kind.__module__) - LOOP
        assert OPTIMIZERS.choice(name).source == f"version {kind.version}"
    assert OPTIMIZERS.choice("diffro").source == ""
    packaged = {kind.__module__ for kind in OPTIMIZERS.values() if kind.__module__.startswith("rrpo.")}
    assert packaged == modules | {DiffRO.__module__}


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(current(), indent=1) + "\n")
