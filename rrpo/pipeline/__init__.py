"""Stages stored by content hash, and the data flow of one experiment cell built from them."""
