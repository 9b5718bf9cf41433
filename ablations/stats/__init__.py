"""Statistics: contrasts, the tested family, intervals, power."""
