// SPDX-License-Identifier: Apache-2.0
// The top function of the HLS machine.
#pragma once

#include "codesign/types.hpp"

// Runs `num_instructions` instructions from beat `program_addr` of the memory image. The last five are read-only
// registers. Arguments are named as the registers of codesign/schedule/isa.py.
extern "C" void codesign_top(const codesign::Beat* memory_base, const codesign::Beat* input_base,
                             codesign::Beat* output_base, codesign::Register program_addr,
                             codesign::Register num_instructions, codesign::Register* magic,
                             codesign::Register* isa_version, codesign::Register* design_hash,
                             codesign::Register* status, codesign::Register* cycles);
