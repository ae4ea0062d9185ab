"""From placed tile programs to words, dependence counts and the image."""
