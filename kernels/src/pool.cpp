// SPDX-License-Identifier: Apache-2.0
#include "codesign/pool.hpp"

namespace codesign {
namespace {

// Operators take microseconds: a worker looks so often for the next one before it sleeps.
constexpr int kSpins = 4000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) {
  workers_.reserve(threads > 1 ? threads - 1 : 0);
  try {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i] { serve(i); });
    }
  } catch (...) {
    stop_.store(true);
    round_.fetch_add(1);
    round_.notify_all();
    for (auto& worker : workers_) {
      worker.join();
    }
    throw;
  }
}

Pool::~Pool() {
  stop_.store(true);
  round_.fetch_add(1);
  round_.notify_all();
  for (auto& worker : workers_) {
    worker.join();
  }
}

void Pool::dispatch(int tasks) {
  tasks_ = tasks;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_seq_cst);
  round_.notify_all();
  work(0);
  for (int spins = 0; busy_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) {
      relax();
    } else {
      std::this_thread::yield();
    }
  }
}

void Pool::work(int thread) {
  for (int i = next_.fetch_add(1, std::memory_order_relaxed); i < tasks_;
       i = next_.fetch_add(1, std::memory_order_relaxed)) {
    call_(context_, i, thread);
  }
}

void Pool::serve(int thread) {
  std::uint32_t seen = 0;
  while (true) {
    for (int spins = 0; round_.load(std::memory_order_acquire) == seen && spins < kSpins; ++spins) {
      relax();
    }
    round_.wait(seen, std::memory_order_acquire);
    seen = round_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire)) {
      return;
    }
    work(thread);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace codesign
