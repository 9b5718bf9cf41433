"""Registries and plugin files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rrpo import plugins
from rrpo.identity import canonical
from rrpo.plugins import OptionRegistry, PluginError, Registry

FILE = "from rrpo import plugins\nplugins.registry_of_the_test.register('mine', object())\n"


@pytest.fixture
def things(no_plugins: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    registry: Registry[object] = Registry("thing")
    monkeypatch.setattr(plugins, "registry_of_the_test", registry, raising=False)
    return registry


def test_the_packages_own_have_no_source(things: Registry[object]):
    item = things.register("own", object())
    assert things["own"] is item
    assert canonical(things.choice("own")) == {"name": "own"}
    assert canonical(things.choice("own", b=2, a=1.5)) == {"name": "own", "options": [["a", 1.5], ["b", 2]]}


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_plugin_is_the_first_to_import_is_the_packages_own(path: Path):
    """As in a worker process, which loads the plugins before anything else."""
    code = f"from rrpo import plugins; plugins.use([{str(path)!r}])\n"
    code += "from rrpo.models.guidance import GUIDANCE\nfrom rrpo.optimizers import OPTIMIZERS\n"
    code += "from rrpo.config import OptimizeConfig\nfrom rrpo.regularizers import REGULARIZERS\n"
    code += "print(OPTIMIZERS.create(OptimizeConfig().optimizer))\n"
    code += "print(*(name for r in (GUIDANCE, OPTIMIZERS, REGULARIZERS) for name, s in r._sources.items() if s))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    created, theirs = done.stdout.splitlines()
    assert created == "DiffRO()"
    expected = {"focal_loss": "focal", "reward_weighted": "reward-weighted"}
    assert theirs == expected.get(path.stem, "")


def test_what_is_registered_is_of_the_kind():
    numbers: Registry[int] = Registry("number", of=int, underscores=True)
    assert numbers.register("one_two", 12) == 12
    with pytest.raises(
        PluginError, match=r"number 'x' is not a int\n  got: <class 'int'>\n  fix: register an instance of int"
    ):
        numbers.register("x", int)  # type: ignore[arg-type]
    with pytest.raises(
        PluginError, match="number: a name may contain only lower-case letters, digits, underscores and hyphens"
    ):
        numbers.register("X", 1)


def test_options_have_simple_types():
    @dataclass(frozen=True)
    class Clipped:
        clip: float | None = None

    registry: OptionRegistry[Clipped] = OptionRegistry("clipping")
    registry.register("clipped", Clipped)
    with pytest.raises(PluginError, match=r"another type than int, float, str or bool\n  got: clip: float \| None"):
        registry.choice("clipped", clip=0.2)


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "a@b", "ö"])
def test_names_that_labels_cannot_hold_are_refused(things: Registry[object], name: str):
    with pytest.raises(PluginError, match="lower-case"):
        things.register(name, object())


def test_a_name_is_given_once_and_an_unknown_one_is_told(things: Registry[object]):
    things.register("own", object())
    with pytest.raises(PluginError, match="the name 'own' is already that of another thing"):
        things.register("own", object())
    with pytest.raises(PluginError, match="no thing named 'other'; there are own"):
        things["other"]


def test_a_plugin_carries_the_hash_of_its_file_and_workers_find_it(things: Registry[object], tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    plugins.use([path])
    plugins.use([path])
    before = things.source("mine")
    assert len(before) == 16
    assert things.choice("mine").source == before
    assert os.environ[plugins.VARIABLE] == str(path)
    assert list(things) == ["mine"]


def test_an_edited_plugin_has_another_hash(things: Registry[object], tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    before = plugins.load(path)
    plugins._loaded.clear()
    path.write_text(FILE.replace("'mine'", "'other'"))
    assert plugins.load(path) != before
    assert things.source("mine") == before


@pytest.mark.parametrize(
    ("text", "said"), [("raise KeyError('x')", "KeyError: 'x'"), ("import nothing_like_it", "nothing_like_it")]
)
def test_a_plugin_that_fails_says_why(things: Registry[object], tmp_path: Path, text: str, said: str):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(PluginError, match=said):
        plugins.use([path])
    assert os.environ[plugins.VARIABLE] == ""
    with pytest.raises(PluginError, match="plugin file not found"):
        plugins.use([tmp_path / "none.py"])


def test_a_plugin_that_fails_half_way_leaves_nothing_behind(things: Registry[object], tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(f"{FILE}1 / 0\n")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        plugins.load(path)
    assert list(things) == []
    path.write_text(FILE)
    plugins.load(path)
    assert list(things) == ["mine"], "the corrected file is loaded by the same process"


def test_an_installed_package_registers_its_plugin_once_with_its_hash(
    things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also if the package that holds it imports it."""
    package = tmp_path / "installed_package_of_the_test"
    package.mkdir()
    (package / "__init__.py").write_text(f"from {package.name}.plugin import plugins\n")
    (package / "plugin.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    point = SimpleNamespace(name="p", module=f"{package.name}.plugin")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "rrpo.plugins" else [])
    for _ in range(2):
        plugins.load_all()
    assert list(things) == ["mine"]
    assert things.source("mine") == hashlib.sha256(FILE.encode()).hexdigest()[:16]
    for missing in (f"{package.name}.other", "no_such_package", "no_such_package.plugin"):
        point.module = missing
        with pytest.raises(PluginError, match=f"'p' refers to a module that does not exist\n  got: {missing}"):
            plugins.load_all()


def test_options_belong_to_a_dataclass():
    registry: OptionRegistry[Any] = OptionRegistry("optimizer")

    @dataclass(frozen=True)
    class Options:
        size: int = 1

    class Undecorated(Options):
        more: int = 2

    for item in (Undecorated, Options()):
        with pytest.raises(PluginError, match="optimizer 'mine' must be a frozen dataclass"):
            registry.register("mine", item)  # type: ignore[arg-type]
    registry.register("mine", Options)


def test_a_plugin_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(path: Path) -> bytes:
        raise PermissionError(f"Permission denied: {path}")

    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PluginError, match=r"cannot be read(.|\n)*Permission denied"):
        plugins.use([tmp_path / "mine.py"])


def test_workers_load_what_the_environment_names(
    things: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    monkeypatch.setenv(plugins.VARIABLE, str(path))
    plugins.load_all()
    assert "mine" in things
