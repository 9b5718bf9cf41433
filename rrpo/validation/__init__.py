"""The world card: is the speech valid, are the judges to be trusted, can the policy hack? One section a file."""
