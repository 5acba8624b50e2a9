// SPDX-License-Identifier: Apache-2.0
// A small pool of threads that live as long as it does. Work is cut into tasks that are handed out in ascending order.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace codesign {

class Pool {
 public:
  // The calling thread is one of `threads`, so threads - 1 are started. Throws std::system_error.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(index, thread) for each index below `tasks`, thread < threads(), and returns when all are done.
  // The task must not throw. One call at a time.
  template <typename Task>
  void run(int tasks, Task&& task) {
    if (tasks <= 1 || workers_.empty()) {
      for (int i = 0; i < tasks; ++i) {
        task(i, 0);
      }
      return;
    }
    using Plain = std::remove_reference_t<Task>;
    call_ = [](void* context, int index, int thread) { (*static_cast<Plain*>(context))(index, thread); };
    context_ = const_cast<void*>(static_cast<const void*>(&task));
    dispatch(tasks);
  }

 private:
  void dispatch(int tasks);
  void work(int thread);
  void serve(int thread);

  void (*call_)(void*, int, int) = nullptr;
  void* context_ = nullptr;
  int tasks_ = 0;
  std::atomic<int> next_{0};
  std::atomic<int> busy_{0};
  std::atomic<std::uint32_t> round_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace codesign
