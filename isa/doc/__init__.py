"""The manual, generated from the table, and its examples."""
