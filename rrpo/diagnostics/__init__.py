"""What is measured on one finished reward model: accuracies, manipulation checks, gradient fidelity."""
