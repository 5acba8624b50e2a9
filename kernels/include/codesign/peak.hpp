// SPDX-License-Identifier: Apache-2.0
// What the core could do: int8 multiply-accumulates a second when everything is in registers.
#pragma once

#include "codesign/cpu.hpp"

namespace codesign {

// The fastest of several runs of a variant's multiply instruction alone; 0 for variants without one of their own.
double peak_macs_per_second(Variant variant);

#if defined(__x86_64__)
// `rounds` times 16 (VNNI) or 4 (AMX) independent instructions.
void spin_vnni(int rounds);
void spin_amx(int rounds);
inline constexpr double kVnniMacs = 16 * 64;
inline constexpr double kAmxMacs = 4 * 16384;
#endif

}  // namespace codesign
