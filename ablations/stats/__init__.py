"""What is tested, and how: contrasts, family, intervals, power."""
