"""What the planned number of seeds can show, said before anything runs: the least effect that the primary test detects."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ablations.family import family, family_text, primary
from ablations.outcomes import OUTCOMES
from ablations.power import alpha_at, detectable

DEFAULT_SPREAD = 0.029
"""Standard deviation over seeds of RRPO - DiffRO in the primary outcome, of `full` on eight seeds in a former world. Used
until the grid has results of its own."""
ALPHA = 0.05
HOPELESS = 0.10
"""An effect of ten points is more than any component has ever shown here."""


def prospects(labels: Collection[str], n: int, spread: float | None, looks: Sequence[int] = ()) -> list[str]:
    """Lines of a plan for a grid that holds the primary family's arms; none for others.

    ``spread`` is the standard deviation of RRPO - DiffRO over the seeds that are done, None where there is none; ``looks`` the
    numbers of seeds at which results are declared to be read, none but the planned one where it is empty.
    """
    contrasts = family()
    arms = {arm for weights in contrasts.values() for arm in weights}
    if not arms <= set(labels):
        return []
    if n < 2:
        return ["primary tests: none with one seed; WARNING: plan at least 8 seeds"]
    sd = DEFAULT_SPREAD if spread is None else spread
    source = "as in a former grid of eight seeds" if spread is None else "as in this grid's finished seeds"
    alpha = alpha_at(n, looks) if looks else ALPHA
    if math.isnan(alpha):
        return [f"primary tests: none at {n} seeds; declared at {', '.join(map(str, looks))}"]
    level = alpha / len(contrasts)
    least = detectable(sd, n, level)
    if not least < 1:  # NaN too
        return [
            f"primary tests: WARNING: no test is possible at {n} seeds: at {level:.2g}, the strictest of Holm's "
            "levels, not even an effect of 100 points is found with 80 % power; plan more seeds, or declare a later look"
        ]
    others = ", ".join(outcome.label for outcome in OUTCOMES if outcome.name != primary().name)
    lines = [
        f"primary tests ({len(contrasts)}, Holm): with {n} seeds an effect of {100 * least:.1f} points is found with 80 % power "
        f"at {level:.3g}, the strictest of Holm's levels (spread {100 * sd:.1f} points, {source})",
        f"tested on {primary().label}: {family_text()}; estimates alone: {others}",
    ]
    if least > HOPELESS:
        lines.append(f"WARNING: effects below {100 * least:.0f} points will stay undecided; plan more seeds")
    return lines
