// The threads that work on one run of sequences together.
//
// A thread may come late: on a machine that others use, a processor that slept can take milliseconds to wake, longer than a
// short text takes. So the first member begins alone, and others are let in where they can be: at the next layer. Which
// members there are changes speed only.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>
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
  // Where a run is: before a layer of a shard.
  struct Place {
    std::size_t shard;
    int layer;
  };
  struct Entry {
    int rank;
    Place place;
  };

  // How many there are by now.
  int size() const { return size_.load(std::memory_order_relaxed); }

  // Returns when every member has called it: what they wrote before is seen after.
  void meet() {
    if (size() == 1) return;
    const std::uint32_t round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size() - 1) {
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

  // By who comes later: waits to be let in, and says where to begin - with a meeting; nothing if the run ended before.
  std::optional<Entry> join() {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    for (int spins = 0;; ++spins) {
      int left = tickets_.load(std::memory_order_relaxed);
      if (left > 0 && tickets_.compare_exchange_weak(left, left - 1, std::memory_order_acquire))
        return Entry{first_rank_ + left - 1, place_};
      if (closed_.load(std::memory_order_relaxed)) return std::nullopt;
      if (spins < patience) {
        __builtin_ia32_pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  // By the first member, before a meeting: lets in who waits. They take part in that meeting.
  void admit(Place place) {
    const int count = waiting_.exchange(0, std::memory_order_relaxed);
    if (count == 0) return;
    place_ = place;
    first_rank_ = size();
    size_.store(first_rank_ + count, std::memory_order_relaxed);
    tickets_.store(count, std::memory_order_release);
  }

  // By the first member: nobody is let in any more.
  void close() { closed_.store(true, std::memory_order_relaxed); }

 private:
  static constexpr int patience = 2000;
  std::atomic<int> size_{1};
  std::atomic<int> arrived_{0};
  std::atomic<std::uint32_t> round_{0};
  std::atomic<int> waiting_{0}, tickets_{0};
  std::atomic<bool> closed_{false};
  Place place_{};  // with `first_rank_`: written before tickets are, read by who has one
  int first_rank_ = 0;
};

// Threads that help with something while it lasts. Who comes when it is over goes away, and is not waited for.
class Helpers {
 public:
  bool enter() {
    const std::lock_guard guard(lock_);
    if (is_over_) return false;
    ++inside_;
    return true;
  }
  void leave() {
    const std::lock_guard guard(lock_);
    if (--inside_ == 0) empty_.notify_all();
  }
  // Returns when all who entered have left.
  void end() {
    std::unique_lock guard(lock_);
    is_over_ = true;
    empty_.wait(guard, [&] { return inside_ == 0; });
  }

 private:
  std::mutex lock_;
  std::condition_variable empty_;
  int inside_ = 0;
  bool is_over_ = false;
};

}  // namespace layertap
