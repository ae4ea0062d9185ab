"""FX graphs as the compiler sees them: how they are edited, checked, printed, and what may remain in a frozen one."""
