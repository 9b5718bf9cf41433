"""Policy optimisation: the loop that every optimiser shares, and the objectives."""
