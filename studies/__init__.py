"""Optuna searches over the regularisers' strengths, on top of `ablations`."""
