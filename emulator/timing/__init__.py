"""The emulator's timing mode: when each instruction of a program runs, what it waits for, and what it costs in
energy."""
