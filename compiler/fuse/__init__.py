"""From the frozen graph to the kernel graph: what follows from the graph alone, whatever the chip and tile sizes."""
