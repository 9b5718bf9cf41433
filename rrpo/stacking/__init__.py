"""Train the models of several cells in one process, with matrix products batched over the cells (``--stack``)."""
