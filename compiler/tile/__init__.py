"""Tile level: kernels cut into blocks that fit on the chip, as instructions over symbolic buffers."""
