"""The tile half's representations and what every stage asks of them: kernels, layouts, ops over symbolic buffers, the
state that passes hand on, how it is verified and printed. What decides anything lies in fuse, emit and schedule."""
