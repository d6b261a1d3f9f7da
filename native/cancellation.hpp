// Whether a run is to end early.
#pragma once

#include <atomic>
#include <functional>

namespace layertap {

// Only the calling thread asks; all threads read the answer.
class Cancellation {
 public:
  explicit Cancellation(const std::function<bool()>& cancelled) : cancelled_(cancelled) {}

  void ask() {
    if (!is_stopped_.load(std::memory_order_relaxed) && cancelled_()) is_stopped_.store(true, std::memory_order_relaxed);
  }
  bool is_stopped() const { return is_stopped_.load(std::memory_order_relaxed); }

 private:
  const std::function<bool()>& cancelled_;
  std::atomic<bool> is_stopped_{false};
};

}  // namespace layertap
