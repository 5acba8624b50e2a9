// SPDX-License-Identifier: Apache-2.0
// Interfaces of the machine: four 128-bit AXI4 masters, one AXI4-Lite slave with the ap_ctrl_hs block and the
// registers.
//
// Offsets (Vitis HLS user guide UG1399, "S_AXILITE Offset Option"): a 64-bit scalar takes two words and a reserved one,
// an output register its word, an ap_vld word and two reserved ones. Masters beyond `ports` are never used, so Vitis
// leaves them out.
#include "codesign/machine.hpp"
#include "codesign_top.hpp"

// Beats that C/RTL co-simulation copies for each master; run_hls.tcl sets it to the bundle's size.
#ifndef CODESIGN_DRAM_BEATS
#define CODESIGN_DRAM_BEATS 65536
#endif

// A pragma's numbers may be macros or constants, but the older preprocessors want the expansion spelled out.
#define CODESIGN_PRAGMA_TEXT(text) _Pragma(#text)
#define CODESIGN_PRAGMA(text) CODESIGN_PRAGMA_TEXT(text)
// clang-format off
#define CODESIGN_REGISTER(name, address) CODESIGN_PRAGMA(HLS INTERFACE mode = s_axilite port = name bundle = control offset = address)
#define CODESIGN_MASTER(gmem) CODESIGN_PRAGMA(HLS INTERFACE mode = m_axi port = gmem bundle = gmem offset = off depth = CODESIGN_DRAM_BEATS latency = 64 num_read_outstanding = 8 num_write_outstanding = 8 max_read_burst_length = 256 max_write_burst_length = 256)
// clang-format on

namespace {

// Registers count bytes, the masters beats.
codesign::Space space(const codesign::WideRegister& base, const codesign::Register& stripe) {
#pragma HLS INLINE
  constexpr unsigned BeatBytes = codesign::config::BeatBits / 8;
  codesign::Space result;
  result.base = base.to_uint64() / BeatBytes;
  result.stripe = stripe.to_uint() / BeatBytes;
  return result;
}

}  // namespace

extern "C" void codesign_top(codesign::Beat* gmem0, codesign::Beat* gmem1, codesign::Beat* gmem2, codesign::Beat* gmem3,
                             codesign::WideRegister memory_base, codesign::WideRegister input_base,
                             codesign::WideRegister output_base, codesign::Register memory_stripe,
                             codesign::Register input_stripe, codesign::Register output_stripe,
                             codesign::Register program_addr, codesign::Register num_instructions,
                             codesign::Register watchdog, codesign::Register* magic, codesign::Register* isa_version,
                             codesign::Register* design_hash, codesign::Register* status, codesign::Register* cycles,
                             codesign::Register* fault, codesign::Register* unit_state) {
  CODESIGN_MASTER(gmem0)
  CODESIGN_MASTER(gmem1)
  CODESIGN_MASTER(gmem2)
  CODESIGN_MASTER(gmem3)
  CODESIGN_REGISTER(memory_base, CODESIGN_ADDR_MEMORY_BASE)
  CODESIGN_REGISTER(input_base, CODESIGN_ADDR_INPUT_BASE)
  CODESIGN_REGISTER(output_base, CODESIGN_ADDR_OUTPUT_BASE)
  CODESIGN_REGISTER(memory_stripe, CODESIGN_ADDR_MEMORY_STRIPE)
  CODESIGN_REGISTER(input_stripe, CODESIGN_ADDR_INPUT_STRIPE)
  CODESIGN_REGISTER(output_stripe, CODESIGN_ADDR_OUTPUT_STRIPE)
  CODESIGN_REGISTER(program_addr, CODESIGN_ADDR_PROGRAM_ADDR)
  CODESIGN_REGISTER(num_instructions, CODESIGN_ADDR_NUM_INSTRUCTIONS)
  CODESIGN_REGISTER(watchdog, CODESIGN_ADDR_WATCHDOG)
  CODESIGN_REGISTER(magic, CODESIGN_ADDR_MAGIC)
  CODESIGN_REGISTER(isa_version, CODESIGN_ADDR_ISA_VERSION)
  CODESIGN_REGISTER(design_hash, CODESIGN_ADDR_DESIGN_HASH)
  CODESIGN_REGISTER(status, CODESIGN_ADDR_STATUS)
  CODESIGN_REGISTER(cycles, CODESIGN_ADDR_CYCLES)
  CODESIGN_REGISTER(fault, CODESIGN_ADDR_FAULT)
  CODESIGN_REGISTER(unit_state, CODESIGN_ADDR_UNIT_STATE)
#pragma HLS INTERFACE mode = s_axilite port = return bundle = control
#pragma HLS INTERFACE mode = ap_ctrl_hs port = return

  const codesign::Spaces spaces = {space(memory_base, memory_stripe), space(input_base, input_stripe),
                                   space(output_base, output_stripe)};
  *magic = codesign::config::Magic;
  *isa_version = codesign::config::IsaVersion;
  *design_hash = codesign::config::DesignHash;
  const codesign::Outcome outcome =
      codesign::run_program(gmem0, gmem1, gmem2, gmem3, spaces, program_addr, num_instructions);
  *status = static_cast<unsigned>(outcome.status);
  *fault = outcome.fault;
  // HLS C++ has no clock: the RTL machine counts cycles, keeps a watchdog and shows its units' states. The m_axi
  // adapters swallow AXI error responses, so READ_ERROR and WRITE_ERROR cannot be reported either.
  (void)watchdog;
  *cycles = 0;
  *unit_state = 0;
}
