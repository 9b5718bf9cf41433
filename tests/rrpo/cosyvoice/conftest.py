"""Tiny tensors are slower on more than one thread."""

import torch

torch.set_num_threads(1)
