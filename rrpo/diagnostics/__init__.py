"""Measurements on one trained reward model: accuracies, manipulation checks, gradient fidelity."""
