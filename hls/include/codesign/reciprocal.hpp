// SPDX-License-Identifier: Apache-2.0
// 1/z and 1/sqrt(v) as a 16-bit mantissa and an exponent, by linear interpolation in a table.
//
// The judge: codesign.reference.functions.reciprocal and rsqrt.
#pragma once

#include "codesign/types.hpp"

namespace codesign {

// 1/z ~ R * 2^-(30 + e), 1/sqrt(v) ~ R * 2^-(22 + e).
constexpr int ReciprocalScaleBits = 30;
constexpr int RsqrtScaleBits = 22;
constexpr int MantissaBits = 16;

struct Mantissa {
  Multiplier value;
  ap_int<8> exponent;
};

// floor(log2(x)) for x > 0, 0 for x = 0.
template <int W>
ap_uint<8> log2_floor(const ap_uint<W>& x) {
#pragma HLS INLINE
  ap_uint<8> result = 0;
  for (int bit = 0; bit < W; ++bit) {
#pragma HLS UNROLL
    if (x[bit]) {
      result = bit;
    }
  }
  return result;
}

// x shifted right by `right` (left when negative), cut to a mantissa.
template <int W>
ap_uint<MantissaBits> normalised(const ap_uint<W>& x, const ap_int<8>& right) {
#pragma HLS INLINE
  constexpr int Wide = W > MantissaBits ? W : MantissaBits;
  const ap_uint<Wide> wide = x;
  const int distance = right.to_int();
  return distance >= 0 ? ap_uint<MantissaBits>(wide >> distance) : ap_uint<MantissaBits>(wide << -distance);
}

// left - round((left - right) * fraction / 2^Bits) for a falling table.
template <int Bits>
Multiplier interpolate(unsigned left, unsigned right, const ap_uint<Bits>& fraction) {
#pragma HLS INLINE
  const ap_uint<MultiplierBits + Bits> step = ap_uint<MultiplierBits>(left - right) * fraction;
  return Multiplier(left - ((step + (1 << (Bits - 1))) >> Bits).to_uint());
}

template <int W>
Mantissa reciprocal(const ap_uint<W>& z) {
#pragma HLS INLINE
  constexpr int Fraction = config::ReciprocalFractionBits;
  Mantissa result;
  result.exponent = ap_int<8>(log2_floor(z)) - (MantissaBits - 1);
  const ap_uint<MantissaBits> v = normalised(z, result.exponent);
  const ap_uint<MantissaBits - 1 - Fraction> index = v.range(MantissaBits - 2, Fraction);
  const ap_uint<Fraction> fraction = v.range(Fraction - 1, 0);
  const unsigned i = index.to_uint();
  result.value = interpolate<Fraction>(config::ReciprocalTable[i], config::ReciprocalTable[i + 1], fraction);
  return result;
}

template <int W>
Mantissa rsqrt(const ap_uint<W>& v) {
#pragma HLS INLINE
  constexpr int Fraction = config::RsqrtFractionBits;
  Mantissa result;
  result.exponent = ap_int<8>(log2_floor(v) >> 1) - (MantissaBits / 2 - 1);
  const ap_int<8> right = result.exponent * 2;
  const ap_uint<MantissaBits> m = normalised(v, right) - (1 << (MantissaBits - 2));
  const ap_uint<MantissaBits - Fraction> index = m.range(MantissaBits - 1, Fraction);
  const ap_uint<Fraction> fraction = m.range(Fraction - 1, 0);
  const unsigned i = index.to_uint();
  result.value = interpolate<Fraction>(config::RsqrtTable[i], config::RsqrtTable[i + 1], fraction);
  return result;
}

}  // namespace codesign
