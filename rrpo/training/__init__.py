"""Supervised training: the policy (SFT), the reward model (pre-training, robust fine-tuning), and the loop they share."""
