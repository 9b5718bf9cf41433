"""The validation report of a world: is the speech valid, are the judges reliable, can the policy hack? One module per section."""
