"""Optuna searches over the hyperparameters of arms, built on `ablations`."""
