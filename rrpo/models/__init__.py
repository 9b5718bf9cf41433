"""The networks of a cell: codec, reward model, policy, vocoder."""
