"""Supervised training of the policy (SFT) and the reward model (pre-training, robust fine-tuning), and their training loop."""
