"""The device side: an image on an emulated chip. Needs no torch."""
