"""The package imports no torch, and torchaudio works beside a CPU torch afterwards."""

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_and_its_planning_modules_imports_no_torch():
    modules = "rrpo, rrpo.config, rrpo.profiles, rrpo.corpus.splits, rrpo.corpus.texts, rrpo.corpus.prompts, rrpo.corpus.manifest"
    assert run(f"import sys, {modules}; print('torch' in sys.modules, 'torchaudio' in sys.modules)") == "False False"


def test_torchaudio_works_afterwards_with_the_stand_in_exactly_beside_a_cpu_torch():
    code = """
import rrpo, torch
from rrpo import torch_shim
from torchaudio.transforms import MelSpectrogram
print(tuple(MelSpectrogram(n_mels=8)(torch.ones(400)).shape), torch_shim.install() == (torch.version.cuda is None))
"""
    assert run(code) == "(8, 3) True"


def test_a_cuda_build_or_a_missing_torch_is_left_alone(tmp_path, monkeypatch):
    from rrpo import torch_shim

    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").touch()
    spec = type("Spec", (), {"origin": str(package / "__init__.py")})()
    monkeypatch.setattr(torch_shim.importlib.util, "find_spec", lambda name: spec)
    (package / "version.py").write_text("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n")
    assert not torch_shim.torch_is_cpu_only()
    (package / "version.py").write_text("cuda: Optional[str] = None\n")
    assert torch_shim.torch_is_cpu_only()
    monkeypatch.setattr(torch_shim.importlib.util, "find_spec", lambda name: None)
    assert not torch_shim.torch_is_cpu_only()
