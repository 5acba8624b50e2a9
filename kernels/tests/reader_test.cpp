// SPDX-License-Identifier: Apache-2.0
// The reader under the sanitizers: every transport and mode, faults, cancelling, and closing at any time.
// reader_test FOLDER: writes a file there. Prints what failed; exit status 1 then.
#include "codesign/reader.hpp"

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "codesign/crc32c.hpp"

namespace {

using namespace codesign;

int failures = 0;

void check(bool good, const std::string& what) {
  if (good)
    return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

struct Blocks {
  std::string path;
  std::vector<Request> requests;
  std::vector<std::uint8_t> content;

  explicit Blocks(const std::string& folder) : path(folder + "/blocks") {
    std::mt19937 draws(1);
    for (std::uint64_t tag = 0; tag < 40; ++tag) {
      const std::uint64_t bytes = 1 + draws() % 60'000;
      const std::uint64_t place = content.size();
      for (std::uint64_t i = 0; i < bytes; ++i)
        content.push_back(static_cast<std::uint8_t>(draws()));
      requests.push_back({tag, place, bytes, place, crc32c(content.data() + place, bytes)});
      content.resize((content.size() + kPage - 1) / kPage * kPage);
    }
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  }
};

std::vector<Completion> collect(Reader& reader, std::size_t count) {
  std::vector<Completion> found;
  const std::int64_t end = now_ns() + 20'000'000'000;
  while (found.size() < count && now_ns() < end) {
    for (const Completion& one : reader.collect(100'000))
      found.push_back(one);
  }
  return found;
}

void reads_all(const Blocks& blocks, Options options, const std::string& what) {
  auto arena = std::make_shared<Arena>(blocks.content.size());
  Reader reader(blocks.path, arena, options);
  for (const Request& request : blocks.requests)
    reader.submit(request);
  const auto found = collect(reader, blocks.requests.size());
  check(found.size() == blocks.requests.size(), what + ": all complete");
  for (const Completion& one : found)
    check(one.status == Status::good, what + ": all are good");
  bool same = true;
  for (std::size_t i = 0; i < blocks.content.size(); ++i)
    same = same && arena->data()[i] == blocks.content[i];
  check(same, what + ": the bytes are the file's");
}

void one_is_bad(const Blocks& blocks, Options options, Status status, const std::string& what) {
  auto arena = std::make_shared<Arena>(blocks.content.size());
  Reader reader(blocks.path, arena, options);
  for (const Request& request : blocks.requests)
    reader.submit(request);
  const auto found = collect(reader, blocks.requests.size());
  std::size_t bad = 0;
  for (const Completion& one : found)
    bad += one.status == status;
  check(found.size() == blocks.requests.size() && bad == 1, what + ": one is bad");
}

// Several threads submit, cancel and collect while another closes.
void closes_at_any_time(const Blocks& blocks, Options options, int delay_us) {
  auto arena = std::make_shared<Arena>(blocks.content.size());
  Reader reader(blocks.path, arena, options);
  std::thread submits([&] {
    for (const Request& request : blocks.requests)
      reader.submit(request);
    reader.cancel();
  });
  std::thread collects([&] { reader.collect(1'000'000); });
  std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
  reader.close();
  submits.join();
  collects.join();
}

// One read after the other, with ever longer pauses: the reader looks, falls asleep, or sleeps when the next is
// offered.
void hears_every_offer(const Blocks& blocks, Options options, const std::string& what) {
  auto arena = std::make_shared<Arena>(blocks.content.size());
  Reader reader(blocks.path, arena, options);
  for (int pause = 0; pause < 200; ++pause) {
    std::this_thread::sleep_for(std::chrono::microseconds(pause * 5));
    reader.submit(blocks.requests.front());
    if (collect(reader, 1).empty())
      return check(false, what + ": every offer is heard");
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2)
    return 2;
  const Blocks blocks(arguments[1]);
  for (const Backend backend : {Backend::uring, Backend::threads}) {
    for (const bool direct : {true, false}) {
      const std::string mode = std::string(backend == Backend::uring ? "uring" : "threads") + (direct ? " direct" : "");
      Options options;
      options.backend = backend;
      options.direct = direct;
      options.chunk = 2 * kPage;
      for (const std::int64_t watch : {0, 500}) {
        options.watch_us = watch;
        reads_all(blocks, options, mode);
        hears_every_offer(blocks, options, mode);
        for (int delay : {0, 100, 1'000, 5'000})
          closes_at_any_time(blocks, options, delay);
      }
      options.faults.short_reads = true;
      reads_all(blocks, options, mode + " short");
      options.faults.short_reads = false;
      options.faults.refuse_direct = true;
      reads_all(blocks, options, mode + " refused");
      options.faults.refuse_direct = false;
      options.faults.error_at = 9;
      options.faults.error = EIO;
      one_is_bad(blocks, options, Status::failed, mode + " EIO");
      options.faults.error_at = 0;
      options.faults.flip_at = 9;
      one_is_bad(blocks, options, Status::damaged, mode + " flip");
      options.faults.flip_at = 0;
      options.faults.delay_us = 60'000'000;
      closes_at_any_time(blocks, options, 2'000);
    }
  }
  std::printf(failures == 0 ? "good\n" : "bad\n");
  return failures == 0 ? 0 : 1;
}
