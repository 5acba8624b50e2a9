// SPDX-License-Identifier: Apache-2.0
// Runs one unit of the machine over a list: int64 records on standard input, int64 results on standard output.
//
//   units NAME < records > results          driven by tests/hls/test_units.py, which holds the expected values
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "codesign/machine.hpp"

namespace {

using codesign::Activation;
using codesign::Residual;

constexpr unsigned WideBits = 56;
constexpr unsigned Experts = codesign::config::MaxExperts;
constexpr unsigned InstructionWords = codesign::config::InstructionBits / 32;
constexpr unsigned BeforeFields = 5;
constexpr unsigned MaxFields = codesign::config::Pe * codesign::config::Simd + codesign::config::Simd;

// Reads `inputs` values a record, writes `outputs` values a record.
struct Unit {
  const char* name;
  unsigned inputs;
  unsigned outputs;
  void (*run)(const std::int64_t* in, std::int64_t* out);
};

void run_gelu(const std::int64_t* in, std::int64_t* out) {
  out[0] = codesign::gelu(Residual(in[0])).to_int();
}

void run_exp2(const std::int64_t* in, std::int64_t* out) {
  out[0] = codesign::exp2_fixed(codesign::ScoreDistance(in[0])).to_int();
}

void run_probability(const std::int64_t* in, std::int64_t* out) {
  out[0] = codesign::probability(codesign::ScoreDistance(in[0])).to_int();
}

void run_reciprocal(const std::int64_t* in, std::int64_t* out) {
  const codesign::Mantissa r = codesign::reciprocal(ap_uint<WideBits>(in[0]));
  out[0] = r.value.to_int();
  out[1] = r.exponent.to_int();
}

void run_rsqrt(const std::int64_t* in, std::int64_t* out) {
  const codesign::Mantissa r = codesign::rsqrt(ap_uint<WideBits>(in[0]));
  out[0] = r.value.to_int();
  out[1] = r.exponent.to_int();
}

// acc, multiplier, shift -> int8, int16
void run_requantize(const std::int64_t* in, std::int64_t* out) {
  const codesign::Biased acc = in[0];
  const codesign::Multiplier multiplier = in[1];
  const codesign::Shift shift = in[2];
  out[0] = codesign::requantize<codesign::ActivationBits>(acc, multiplier, shift).to_int();
  out[1] = codesign::requantize<codesign::ResidualBits>(acc, multiplier, shift).to_int();
}

// S, Q, D, x, gain, bias, shift -> y
void run_norm(const std::int64_t* in, std::int64_t* out) {
  const unsigned dim = static_cast<unsigned>(in[2]);
  const codesign::NormRow row = codesign::norm_row(codesign::NormSum(in[0]), codesign::NormSquares(in[1]), dim);
  out[0] =
      codesign::norm_value(Residual(in[3]), row, dim, Residual(in[4]), codesign::Bias(in[5]), codesign::Shift(in[6]))
          .to_int();
}

// experts, top_k, logits -> gates, 0 where not chosen
void run_choose(const std::int64_t* in, std::int64_t* out) {
  codesign::Score logit[Experts];
  codesign::Gate gate[Experts];
  bool chosen[Experts];
  for (unsigned e = 0; e < Experts; ++e) {
    logit[e] = in[2 + e];
  }
  codesign::choose_experts(logit, static_cast<unsigned>(in[0]), static_cast<unsigned>(in[1]), gate, chosen);
  for (unsigned e = 0; e < Experts; ++e) {
    out[e] = chosen[e] ? gate[e].to_int() : 0;
  }
}

// weights [Pe][Simd], x [Simd] -> sums [Pe]
void run_mac(const std::int64_t* in, std::int64_t* out) {
  static Activation weight[codesign::config::Pe][codesign::config::Simd];
  static Activation x[codesign::config::Simd];
  codesign::PartialSum sum[codesign::config::Pe];
  for (unsigned p = 0; p < codesign::config::Pe; ++p) {
    for (unsigned s = 0; s < codesign::config::Simd; ++s) {
      weight[p][s] = *in++;
    }
  }
  for (unsigned s = 0; s < codesign::config::Simd; ++s) {
    x[s] = *in++;
  }
  codesign::mac_array(weight, x, sum);
  for (unsigned p = 0; p < codesign::config::Pe; ++p) {
    out[p] = sum[p].to_int();
  }
}

// an instruction's 32-bit words, the lowest first, and what stands before it -> whether it is legal
void run_legal(const std::int64_t* in, std::int64_t* out) {
  codesign::InstructionWord word = 0;
  for (unsigned i = 0; i < InstructionWords; ++i) {
    word.range(i * 32 + 31, i * 32) = ap_uint<32>(in[i]);
  }
  const std::int64_t* known = in + InstructionWords;
  const codesign::Before before = {unsigned(known[0]), unsigned(known[1]), unsigned(known[2]), unsigned(known[3]),
                                   unsigned(known[4])};
  out[0] = codesign::is_legal(word, before) ? 1 : 0;
}

const Unit Units[] = {
    {"gelu", 1, 1, run_gelu},
    {"exp2", 1, 1, run_exp2},
    {"probability", 1, 1, run_probability},
    {"reciprocal", 1, 2, run_reciprocal},
    {"rsqrt", 1, 2, run_rsqrt},
    {"requantize", 3, 2, run_requantize},
    {"norm", 7, 1, run_norm},
    {"choose", 2 + Experts, Experts, run_choose},
    {"mac", MaxFields, codesign::config::Pe, run_mac},
    {"legal", InstructionWords + BeforeFields, 1, run_legal},
};

int run(const Unit& unit) {
  static std::int64_t in[MaxFields + 2 + Experts];
  static std::int64_t out[codesign::config::Pe + Experts];
  while (std::fread(in, sizeof(std::int64_t), unit.inputs, stdin) == unit.inputs) {
    unit.run(in, out);
    std::fwrite(out, sizeof(std::int64_t), unit.outputs, stdout);
  }
  return std::ferror(stdin) != 0 || std::fflush(stdout) != 0;
}

}  // namespace

int main(int argc, char** argv) {
  for (const Unit& unit : Units) {
    if (argc == 2 && std::strcmp(argv[1], unit.name) == 0) {
      return run(unit);
    }
  }
  std::fprintf(stderr, "units: there must be one argument, the name of a unit\n");
  return 2;
}
