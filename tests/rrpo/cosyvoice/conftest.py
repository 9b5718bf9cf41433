"""Tiny tensors are slower on more than one thread. Make the helpers of this folder importable."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
