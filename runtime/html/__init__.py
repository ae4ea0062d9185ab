"""The report page: a program as one self-contained HTML file."""
