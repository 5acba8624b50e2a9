// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "codesign/reader.hpp"

namespace codesign {
namespace {

int open_or_throw(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    throw std::system_error(errno, std::generic_category(), path);
  return descriptor;
}

}  // namespace

File::File(const std::string& path, const Options& options) : faults_(options.faults), cached_(open_or_throw(path)) {
#if defined(O_DIRECT)
  if (options.direct && !faults_.refuse_direct)
    direct_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
#endif
  use_direct_ = direct_ >= 0;
#if defined(POSIX_FADV_RANDOM)
  posix_fadvise(cached_, 0, 0, POSIX_FADV_RANDOM);  // no read-ahead: what is read was asked for
#endif
}

File::~File() {
  if (direct_ >= 0)
    close(direct_);
  close(cached_);
}

std::int64_t File::damage(std::int64_t result, std::uint8_t* to, std::size_t wanted) {
  const std::uint64_t number = reads_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (number == faults_.error_at)
    return -faults_.error;
  if (result <= 0)
    return result;
  if (number == faults_.flip_at)
    to[0] ^= 0x10;  // behind a block lie zeros that nobody sums
  if (faults_.short_reads && result > static_cast<std::int64_t>(2 * kPage)) {
    const auto half = static_cast<std::int64_t>(wanted / 2);
    return std::min(result, half + static_cast<std::int64_t>(number % 777));
  }
  return result;
}

void File::forget(std::uint64_t offset, std::size_t bytes) const {
#if defined(POSIX_FADV_DONTNEED)
  if (!direct())
    posix_fadvise(cached_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
#else
  static_cast<void>(offset);
  static_cast<void>(bytes);
#endif
}

}  // namespace codesign
