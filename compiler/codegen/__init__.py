"""From placed tile programs to instructions, dependence counts and the image."""
