"""Devices, executables, the torch.compile backend and the command line."""
