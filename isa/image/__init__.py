"""The image: one file with everything that a device needs to run a compiled model."""
