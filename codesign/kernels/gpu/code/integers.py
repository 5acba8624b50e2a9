# SPDX-License-Identifier: Apache-2.0
"""The exact functions behind the operators on tiles; formulas: `codesign.spec.ops`, `codesign.spec.moe`.

Tables are int32 arrays. Whatever may exceed 32 bits is int64; no float takes part.
"""

import triton
import triton.language as tl


@triton.jit
def shift_round(x, shift):
    """Arithmetic right shift of int64 `x` by int64 `shift` >= 1, rounding half up."""
    return (x + ((shift * 0 + 1) << (shift - 1))) >> shift


@triton.jit
def rescale(x, multiplier, shift):
    """`x` times multiplier * 2**-shift, rounded half up, int64. |x| < 2**47."""
    return shift_round(x.to(tl.int64) * multiplier.to(tl.int64), shift.to(tl.int64))


@triton.jit
def sat8(x):
    """Clamp to int8."""
    return tl.minimum(tl.maximum(x, -128), 127)


@triton.jit
def sat16(x):
    """Clamp to int16; the result is int32."""
    return tl.minimum(tl.maximum(x, -32768), 32767).to(tl.int32)


@triton.jit
def less_delta(u, table, domain_bits: tl.constexpr):
    """max(u, 0) minus the interpolated table of |u|, for int32 `u` of 10 fraction bits: GELU (12) and SiLU (14)."""
    size = tl.abs(u)
    a = tl.minimum(size, (1 << domain_bits) - 1)
    left = tl.load(table + (a >> 6))
    right = tl.load(table + (a >> 6) + 1)
    delta = ((left << 6) + (right - left) * (a & 63) + (1 << 9)) >> 10
    return tl.maximum(u, 0) - tl.where((size >> domain_bits) > 0, 0, delta)


@triton.jit
def log2_floor(x):
    """floor(log2(x)) of int64 x > 0, in int64."""
    found = x * 0
    for i in tl.static_range(6):
        step = found + (32 >> i)
        found = tl.where((x >> step) > 0, step, found)
    return found


@triton.jit
def shift_either(x, right):
    """x >> right, or x << -right where that is negative."""
    return tl.where(right >= 0, x >> tl.maximum(right, 0), x << tl.maximum(-right, 0))


@triton.jit
def interpolate(table, offset):
    """A falling table of segments of 512 at int64 `offset`, in int64."""
    i = offset >> 9
    left = tl.load(table + i).to(tl.int64)
    right = tl.load(table + i + 1).to(tl.int64)
    return left - (((left - right) * (offset & 511) + 256) >> 9)


@triton.jit
def reciprocal(z, table):
    """(R, e) with 1/z ~ R * 2**-(30 + e), int64, z > 0."""
    e = log2_floor(z) - 15
    return interpolate(table, shift_either(z, e) - (1 << 15)), e


@triton.jit
def rsqrt(v, table):
    """(R, e) with 1/sqrt(v) ~ R * 2**-(22 + e), int64, v > 0."""
    e = (log2_floor(v) >> 1) - 7
    return interpolate(table, shift_either(v, 2 * e) - (1 << 14)), e


@triton.jit
def exp2_fixed(d, table):
    """2**(15 - d / 256), truncated, of int32 d >= 0."""
    i = d >> 8
    return tl.where(i > 15, 0, tl.load(table + (d & 255)) >> tl.minimum(i, 15))


@triton.jit
def probability(d, table):
    """127 * 2**(-d / 256), rounded half up, of int32 d >= 0."""
    i = tl.minimum(d >> 8, 16)
    p = (tl.load(table + (d & 255)) * 127 + ((i * 0 + 1) << (14 + i))) >> (15 + i)
    return tl.where(i > 15, 0, p)
