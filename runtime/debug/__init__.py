"""The debugger: a machine that steps both ways, a session on top of it, and front ends that only read and print."""
