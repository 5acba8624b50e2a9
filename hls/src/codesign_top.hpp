// SPDX-License-Identifier: Apache-2.0
// The top function of the HLS machine.
#pragma once

#include "codesign/types.hpp"

// Runs `num_instructions` instructions from line `program_addr` of the memory image. The masters are indexed with
// physical addresses in beats; the last seven arguments are read-only registers. Arguments are named as the registers
// of codesign/schedule/isa.py.
extern "C" void codesign_top(codesign::Beat* gmem0, codesign::Beat* gmem1, codesign::Beat* gmem2, codesign::Beat* gmem3,
                             codesign::WideRegister memory_base, codesign::WideRegister input_base,
                             codesign::WideRegister output_base, codesign::Register memory_stripe,
                             codesign::Register input_stripe, codesign::Register output_stripe,
                             codesign::Register program_addr, codesign::Register num_instructions,
                             codesign::Register watchdog, codesign::Register* magic, codesign::Register* isa_version,
                             codesign::Register* design_hash, codesign::Register* status, codesign::Register* cycles,
                             codesign::Register* fault, codesign::Register* unit_state);
