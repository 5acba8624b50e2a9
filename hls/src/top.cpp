// SPDX-License-Identifier: Apache-2.0
// Interfaces of the machine: two 128-bit AXI4 masters, one AXI4-Lite slave with the ap_ctrl_hs block and the registers.
//
// Offsets (Vitis HLS user guide UG1399, "S_AXILITE Offset Option"): a 64-bit pointer under m_axi offset=slave takes two
// words and a reserved one, an output register its word, an ap_vld word and two reserved ones.
#include "codesign/machine.hpp"
#include "codesign_top.hpp"

// Beats that C/RTL co-simulation copies for each pointer; run_hls.tcl sets them to the bundle's sizes.
#ifndef CODESIGN_MEMORY_BEATS
#define CODESIGN_MEMORY_BEATS 65536
#endif
#ifndef CODESIGN_INPUT_BEATS
#define CODESIGN_INPUT_BEATS 65536
#endif
#ifndef CODESIGN_OUTPUT_BEATS
#define CODESIGN_OUTPUT_BEATS 65536
#endif

// A pragma's numbers may be macros or constants, but the older preprocessors want the expansion spelled out.
#define CODESIGN_PRAGMA_TEXT(text) _Pragma(#text)
#define CODESIGN_PRAGMA(text) CODESIGN_PRAGMA_TEXT(text)
// clang-format off
#define CODESIGN_REGISTER(name, address) CODESIGN_PRAGMA(HLS INTERFACE mode = s_axilite port = name bundle = control offset = address)
#define CODESIGN_READ_MASTER(name, gmem, beats) CODESIGN_PRAGMA(HLS INTERFACE mode = m_axi port = name bundle = gmem offset = slave depth = beats latency = 64 num_read_outstanding = 8 max_read_burst_length = 64)
#define CODESIGN_WRITE_MASTER(name, gmem, beats) CODESIGN_PRAGMA(HLS INTERFACE mode = m_axi port = name bundle = gmem offset = slave depth = beats latency = 64 num_write_outstanding = 8 max_write_burst_length = 64)
// clang-format on

extern "C" void codesign_top(const codesign::Beat* memory_base, const codesign::Beat* input_base,
                             codesign::Beat* output_base, codesign::Register program_addr,
                             codesign::Register num_instructions, codesign::Register* magic,
                             codesign::Register* isa_version, codesign::Register* design_hash,
                             codesign::Register* status, codesign::Register* cycles) {
  CODESIGN_READ_MASTER(memory_base, gmem0, CODESIGN_MEMORY_BEATS)
  CODESIGN_READ_MASTER(input_base, gmem1, CODESIGN_INPUT_BEATS)
  CODESIGN_WRITE_MASTER(output_base, gmem1, CODESIGN_OUTPUT_BEATS)
  CODESIGN_REGISTER(memory_base, CODESIGN_ADDR_MEMORY_BASE)
  CODESIGN_REGISTER(input_base, CODESIGN_ADDR_INPUT_BASE)
  CODESIGN_REGISTER(output_base, CODESIGN_ADDR_OUTPUT_BASE)
  CODESIGN_REGISTER(program_addr, CODESIGN_ADDR_PROGRAM_ADDR)
  CODESIGN_REGISTER(num_instructions, CODESIGN_ADDR_NUM_INSTRUCTIONS)
  CODESIGN_REGISTER(magic, CODESIGN_ADDR_MAGIC)
  CODESIGN_REGISTER(isa_version, CODESIGN_ADDR_ISA_VERSION)
  CODESIGN_REGISTER(design_hash, CODESIGN_ADDR_DESIGN_HASH)
  CODESIGN_REGISTER(status, CODESIGN_ADDR_STATUS)
  CODESIGN_REGISTER(cycles, CODESIGN_ADDR_CYCLES)
#pragma HLS INTERFACE mode = s_axilite port = return bundle = control
#pragma HLS INTERFACE mode = ap_ctrl_hs port = return

  *magic = codesign::config::Magic;
  *isa_version = codesign::config::IsaVersion;
  *design_hash = codesign::config::DesignHash;
  *status = static_cast<unsigned>(
      codesign::run_program(memory_base, input_base, output_base, program_addr, num_instructions));
  // HLS C++ has no clock; the RTL machine counts here. The m_axi adapters swallow AXI error responses, so READ_ERROR
  // and WRITE_ERROR cannot be reported either.
  *cycles = 0;
}
