"""What of a model goes to the chip, what is folded, what falls back and why: told before anything is compiled."""
