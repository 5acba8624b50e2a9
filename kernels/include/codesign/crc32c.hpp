// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli, as in iSCSI and ext4), which the store of experts keeps of every block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace codesign {

// The checksum of `size` bytes, continuing `crc` (0 to begin). By the processor's instructions where it has them.
std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t crc = 0);

// The same by a table, on any processor.
std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t crc = 0);

}  // namespace codesign
