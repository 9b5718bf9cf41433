"""A grid and its arms as a plugin: does RRPO still improve on DiffRO at half the learning rate?

python -m ablations.run --plugin examples/two_rates.py --grid two-rates --plan
python -m ablations.run --plugin examples/two_rates.py --grid two-rates
python -m reports.run --plugin examples/two_rates.py --grid two-rates
python -m rrpo --plugin examples/two_rates.py --arm rrpo_half --profile quick
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ablations.grids import GRIDS, Grid, product
from rrpo import ARMS, Cell, Profile
from rrpo.profiles import EMBEDDED

HALF = EMBEDDED.optimize.lr / 2

for name in ("diffro", "rrpo"):
    ARMS.register(f"{name}_half", replace(ARMS[name], lr=HALF))


def two_rates(profile: Profile, seeds: Sequence[int]) -> list[Cell]:
    """Return SFT, and DiffRO and RRPO at the profile's learning rate and at half of that of the profile `EMBEDDED`."""
    arms = {name: ARMS[name] for name in ("sft", "diffro", "rrpo", "diffro_half", "rrpo_half")}
    return product(arms, profile, seeds)


GRIDS.register("two-rates", Grid(cells=two_rates, seeds=5))
