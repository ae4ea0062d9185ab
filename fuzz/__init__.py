"""Fuzzers: whatever comes in, the answer is a result or an `isa.errors.Error`; never a crash, a hang, or memory without
bound.

make fuzz                                  each fuzzer for 10 minutes (LLMCHIP_FUZZ_SECONDS=20 in CI)
python -m fuzz images --seconds 60 --seed 7
python -m fuzz images --case fuzz/found/images-1a2b3c.bin        run one found case again
"""
