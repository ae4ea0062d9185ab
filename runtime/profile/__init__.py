"""How fast a program is, how fast it could be, and what lies between."""
