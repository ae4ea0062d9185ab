"""The order of a tile program, its addresses, and the search over tilings."""
