// SPDX-License-Identifier: Apache-2.0
// The processor's instruction sets, as far as a kernel here uses them.
#pragma once

namespace codesign {

// In ascending order of speed on a processor that has several; every variant computes the same bits.
enum class Variant { portable, neon, avx2, avx512_vnni, amx_int8 };

// Whether this processor, and the operating system on it, can run the variant. Asks for AMX' tile registers once.
bool available(Variant variant);

// The fastest variant that is available.
Variant best_variant();

}  // namespace codesign
