"""Contract tests, as classes to subclass, for implementations of the package's Protocols. Needs pytest."""
