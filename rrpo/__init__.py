"""One experiment cell of RRPO: audio in, tokens, reward model, regularisers, policy optimisation, judges.

Importing the package imports no torch; it only makes torchaudio importable beside a CPU torch.
"""

from rrpo import torch_shim

torch_shim.install()
