"""What can be known of a program without running it: bounds, types, races, what is never written or never read. Knows
only `isa`."""
