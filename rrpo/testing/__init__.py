"""Contracts: pytest classes that an implementation of your own runs in one line."""
