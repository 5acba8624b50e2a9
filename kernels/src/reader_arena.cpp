// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <chrono>
#include <new>

#include "codesign/reader.hpp"

namespace codesign {
namespace {

constexpr std::size_t kHugePage = 1U << 21;

}  // namespace

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Mapped a huge page longer than asked for, so that it can begin on one; what is outside is never touched.
Arena::Arena(std::size_t bytes) : mapped_size_(bytes + kHugePage), size_(bytes / kPage * kPage) {
  mapped_ = mmap(nullptr, mapped_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped_ == MAP_FAILED)
    throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
  data_ = reinterpret_cast<std::uint8_t*>((address + kHugePage - 1) / kHugePage * kHugePage);
#if defined(MADV_HUGEPAGE)
  const std::size_t huge = size_ / kHugePage * kHugePage;  // the rest in small pages: not a byte beyond the budget
  if (huge > 0)
    madvise(data_, huge, MADV_HUGEPAGE);
#endif
}

Arena::~Arena() {
  munmap(mapped_, mapped_size_);
}

}  // namespace codesign
