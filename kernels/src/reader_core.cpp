// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <stdexcept>

#include "codesign/reader.hpp"

namespace codesign {

Reader::Reader(const std::string& path, std::shared_ptr<Arena> arena, const Options& options)
    : arena_(std::move(arena)),
      file_(path, options),
      queue_(*arena_, std::max(kPage, options.chunk / kPage * kPage), options.watch_us),
      late_us_(options.faults.late_us),
      backend_(options.backend) {
  const unsigned depth = std::clamp(options.depth, 1U, 256U);
  if (backend_ == Backend::uring && !options.faults.refuse_uring)
    transport_ = make_uring(queue_, file_, depth);
  if (!transport_) {
    backend_ = Backend::threads;
    transport_ = make_threads(queue_, file_, depth);
  }
}

Reader::~Reader() {
  close();
}

void Reader::submit(const Request& request) {
  const std::uint64_t room = arena_->size();
  const std::uint64_t length = (request.bytes + kPage - 1) / kPage * kPage;
  if (request.bytes == 0 || request.bytes > room || length > room || request.place > room - length ||
      request.place % kPage != 0 || request.offset % kPage != 0 || request.offset > UINT64_MAX / 4) {
    throw std::invalid_argument("a read must be of whole pages within the arena");
  }
  queue_.push(request);
  const std::lock_guard lock(closing_);
  if (transport_)
    transport_->offer();
}

std::size_t Reader::cancel() {
  return queue_.cancel();
}

void Reader::close() {
  queue_.close();
  const std::lock_guard lock(closing_);
  if (transport_)
    transport_->wake();
  transport_.reset();
}

}  // namespace codesign
