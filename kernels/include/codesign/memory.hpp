// SPDX-License-Identifier: Apache-2.0
// Zeroed memory for vectors and tiles: aligned to cache lines, on huge pages where it is large.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace codesign {

constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Owns `bytes` of zeroed memory and a slack behind it, so that a vector may read (never write) past the last element.
// Throws std::bad_alloc.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {
    const std::size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
    const std::size_t size = round_up(bytes + kSlack, alignment);
    void* memory = std::aligned_alloc(alignment, size);
    if (memory == nullptr) {
      throw std::bad_alloc();
    }
#if defined(__linux__)
    if (alignment == kHugePage) {
      madvise(memory, size, MADV_HUGEPAGE);
    }
#endif
    std::memset(memory, 0, size);
    data_.reset(static_cast<std::byte*>(memory));
  }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kHugePage = std::size_t{1} << 21;
  static constexpr std::size_t kSlack = 256;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_ = 0;
};

}  // namespace codesign
