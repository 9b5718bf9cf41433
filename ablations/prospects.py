"""What the planned number of seeds can show, said before anything runs: the least effect that the primary test detects."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ablations.contrasts import PRIMARY
from ablations.power import alpha_at, detectable

DEFAULT_SPREAD = 0.029
"""Standard deviation over seeds of RRPO - DiffRO in gold gain at matched KL: what `full` on eight seeds showed (README). Used
until the grid has results of its own."""
ALPHA = 0.05
FLOOR = "smallest p that sign flips of {n} seeds can give: {floor:.2g}"
HOPELESS = 0.10
"""An effect of ten points is more than any component has ever shown here."""


def prospects(labels: Collection[str], n: int, spread: float | None, looks: Sequence[int] = ()) -> list[str]:
    """Lines of a plan for a grid that holds the primary family's arms; none for others.

    ``spread`` is the standard deviation of RRPO - DiffRO over the seeds that are done, None where there is none; ``looks`` the
    numbers of seeds at which results are declared to be read, none but the planned one where it is empty.
    """
    arms = {arm for weights in PRIMARY.values() for arm in weights}
    if not arms <= set(labels):
        return []
    if n < 2:
        return ["primary tests: none with one seed; WARNING: plan at least 8 seeds"]
    sd = DEFAULT_SPREAD if spread is None else spread
    source = "as in the README's grid" if spread is None else "as in this grid's finished seeds"
    alpha = alpha_at(n, looks) if looks else ALPHA
    if math.isnan(alpha):
        return [f"primary tests: none at {n} seeds; declared at {', '.join(map(str, looks))}"]
    least = detectable(sd, n, alpha / len(PRIMARY))
    if not least < 1:  # NaN too
        return [
            f"primary tests: WARNING: no test is possible at {n} seeds: at {alpha / len(PRIMARY):.2g}, the strictest of Holm's "
            "levels, not even an effect of 100 points is found with 80 % power; plan more seeds, or declare a later look"
        ]
    floor = 2.0 / 2**n
    lines = [
        f"primary tests ({len(PRIMARY)}, Holm): with {n} seeds an effect of {100 * least:.1f} points is found with 80 % power "
        f"at {alpha / len(PRIMARY):.3g}, the strictest of Holm's levels (spread {100 * sd:.1f} points, {source})",
        FLOOR.format(n=n, floor=floor),
    ]
    if least > HOPELESS:
        lines.append(f"WARNING: effects below {100 * least:.0f} points will stay undecided; plan more seeds")
    if floor * len(PRIMARY) > alpha:
        enough = math.ceil(math.log2(2 * len(PRIMARY) / alpha))
        lines.append(
            f"WARNING: no sign-flip test can stand Holm's correction at {alpha:.3g}; that takes {enough} seeds"
        )
    return lines
