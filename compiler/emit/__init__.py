"""From kernels to a tile program: where values live, the tile sizes of each kernel, and one emitter per operation."""
