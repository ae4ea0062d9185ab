"""Constants of the chip's functions, as float32 bit patterns. Data only: docs/numerics.md says how they are used.

The torch reference and the emulator both read these words and each writes the arithmetic on its own.
Polynomials are listed highest power first, the order in which Horner's scheme uses them.
`tools/fit_functions.py --check` reproduces the fitted ones (ERF_P, ERF_R, TANH_P).
"""

NAN = 0x7FC00000
INF = 0x7F800000
FLT_MAX = 0x7F7FFFFF

# exp(x) = 2**n * exp(r), r = (x - n*C1) - n*C2; the polynomial is Cephes' expf
EXP_MIN = 0xC2AE0000  # -87: below is +0
EXP_MAX = 0x42B00000  # 88: above is +Inf
LOG2E = 0x3FB8AA3B
EXP_C1 = 0x3F318000  # 0.693359375
EXP_C2 = 0xB95E8083  # -2.12194440e-4
EXP_P = (0x39506967, 0x3AB743CE, 0x3C088908, 0x3D2AA9C1, 0x3E2AAAAA, 0x3F000000)

# erf(x) = x + x*P(x*x) for |x| < SPLIT, else +-(1 - exp(-b*b) * R(b - 2)), b = min(|x|, MAX)
ERF_SPLIT = 0x3F800000  # 1
ERF_MAX = 0x40800000  # 4
ERF_CENTRE = 0x40000000  # 2
ERF_P = (0x38A43786, 0xBA51CE41, 0x3BA9FCED, 0xBCDBFBDD, 0x3DE71675, 0xBEC0939F, 0x3E0375D4)
ERF_R = (0xB9CBE548, 0x3A12F5EE, 0xBAD21F44, 0x3BB69569, 0xBC7DD20C, 0x3D2B1860, 0xBDDAB9B5, 0x3E82C348)

# tanh(x) = x + x*P(x*x) for |x| < SPLIT, else +-(1 - 2 * (1 / (1 + exp(|x| + |x|))))
TANH_SPLIT = 0x3F200000  # 0.625
TANH_P = (0xBBBAC204, 0x3CA9079F, 0xBD5C1C23, 0x3E088381, 0xBEAAAA99, 0x00000000)

# gelu
SQRT_HALF = 0x3F3504F3
SQRT_2_OVER_PI = 0x3F4C422A
GELU_CUBIC = 0x3D372713  # 0.044715

# quantization
Q_LEVELS = 0x42FF0000  # 127.5 = (127 - (-128)) / 2
Q_MIN_SCALE = 0x34000000  # 2**-23

SUM_LANES = 64  # architectural accumulators of a sum
E2M1_TWICE = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice the numbers of the 4-bit float e2m1
GROUP_LANES = 8  # sums that a grouped product with sub-scales keeps apart
