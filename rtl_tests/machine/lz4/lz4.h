// SPDX-License-Identifier: Apache-2.0
//
// The two functions of LZ4 that Verilator's FST writer calls, for systems without liblz4's header: valid LZ4 blocks (LZ4 block
// format, lz4.org) that hold their data as they are. The waveforms are larger and otherwise the same.
#ifndef CODESIGN_SIM_LZ4_H_
#define CODESIGN_SIM_LZ4_H_

#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char* from, char* to, int size, int room) {
  if (room < LZ4_compressBound(size)) return 0;
  char* at = to;
  *at++ = static_cast<char>((size < 15 ? size : 15) << 4);  // one sequence: literals to the end
  if (size >= 15) {
    int rest = size - 15;
    for (; rest >= 255; rest -= 255) *at++ = static_cast<char>(255);
    *at++ = static_cast<char>(rest);
  }
  std::memcpy(at, from, static_cast<std::size_t>(size));
  return static_cast<int>(at - to) + size;
}

#endif  // CODESIGN_SIM_LZ4_H_
