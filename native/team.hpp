// The threads that work on one run of sequences together.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace layertap {

// A part of [0, count) for each member, in units of `unit`; parts differ by one unit at most.
struct Part {
  std::int64_t begin, end;
};

inline Part part_of(std::int64_t count, std::int64_t unit, int rank, int size) {
  const std::int64_t units = (count + unit - 1) / unit;
  const std::int64_t begin = units * rank / size * unit;
  const std::int64_t end = units * (rank + 1) / size * unit;
  return {begin < count ? begin : count, end < count ? end : count};
}

class Team {
 public:
  explicit Team(int size) : size_(size) {}

  int size() const { return size_; }

  // Returns when every member has called it: what they wrote before is seen after.
  void meet() {
    if (size_ == 1) return;
    const std::uint32_t round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      round_.notify_all();
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (spins < patience) {
        __builtin_ia32_pause();
      } else {
        // A member may be waiting for this core; asleep, because who yields in a loop comes last where others work, too.
        round_.wait(round, std::memory_order_acquire);
      }
    }
  }

 private:
  static constexpr int patience = 2000;
  const int size_;
  std::atomic<int> arrived_{0};
  std::atomic<std::uint32_t> round_{0};
};

}  // namespace layertap
