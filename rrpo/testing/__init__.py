"""Contract tests of what a user may add, a class each: subclass one beside your own tests, and pytest runs it."""
