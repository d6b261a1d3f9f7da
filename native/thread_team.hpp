// Threads that work on a shard together.
//
// The first member leads: it begins alone, and threads that have no shard of their own join it at the next half of a layer. They may
// come late: on a busy machine, a processor that slept can take milliseconds to wake, longer than a short text takes. Who
// is there affects speed only.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>

namespace layertap {

// A member's part of [0, count), in units of `unit`; parts differ by one unit at most.
struct Part {
  std::int64_t begin, end;
};

inline Part part_of(std::int64_t count, std::int64_t unit, int rank, int size) {
  const std::int64_t units = (count + unit - 1) / unit;
  const std::int64_t begin = units * rank / size * unit;
  const std::int64_t end = units * (rank + 1) / size * unit;
  return {begin < count ? begin : count, end < count ? end : count};
}

class ThreadTeam {
 public:
  // How far a shard has come: before the attention of a layer, or before its feed-forward.
  struct Place {
    std::size_t shard;
    int layer;
    bool is_feed_forward;
  };
  struct Entry {
    int rank;
    Place place;
  };

  // Members admitted so far.
  int size() const { return size_.load(std::memory_order_relaxed); }

  // Called by the leader where threads may join: the work that is left from the next such place on.
  void report(double work_left) { work_left_.store(work_left, std::memory_order_relaxed); }

  // The work that would be left for each member if one more thread joined; 0: there is none to join.
  double work_for_each() const {
    return work_left_.load(std::memory_order_relaxed) / (size() + waiting_.load(std::memory_order_relaxed) + 1);
  }

  // Called by the leader before a barrier: whether the run ends here. All members read the answer after the barrier.
  void set_stopped(bool is_stopped) { is_stopped_.store(is_stopped, std::memory_order_relaxed); }
  bool is_stopped() const { return is_stopped_.load(std::memory_order_relaxed); }

  // A barrier: returns when every member has called it. What they wrote before is visible afterwards.
  void arrive_and_wait() {
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
        // Sleep: another member may need this core, and on a busy machine a thread that yields in a loop is scheduled last.
        round_.wait(round, std::memory_order_acquire);
      }
    }
  }

  // Called by a thread that is to help: waits to be admitted, and returns where to begin (with a barrier), or nothing if
  // the shard has ended.
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

  // Called by the leader before a barrier: admits the threads that wait. They take part in that barrier.
  void admit(Place place) {
    const int count = waiting_.exchange(0, std::memory_order_relaxed);
    if (count == 0) return;
    place_ = place;
    first_rank_ = size();
    size_.store(first_rank_ + count, std::memory_order_relaxed);
    tickets_.store(count, std::memory_order_release);
  }

  // Called by the leader after its last shard: no thread is admitted from now on.
  void close() { closed_.store(true, std::memory_order_relaxed); }

 private:
  static constexpr int patience = 2000;
  std::atomic<int> size_{1};
  std::atomic<int> arrived_{0};
  std::atomic<std::uint32_t> round_{0};
  std::atomic<int> waiting_{0}, tickets_{0};
  std::atomic<double> work_left_{0.0};
  std::atomic<bool> is_stopped_{false}, closed_{false};
  Place place_{};  // written with `first_rank_` before tickets are issued, read by threads that hold one
  int first_rank_ = 0;
};

// Calls work(0) on this thread and work(1), ..., work(workers - 1) on threads of their own, or on fewer where the process
// may not start as many. Once work(0) has returned it waits for those that have begun; a thread that comes later does
// nothing and is not waited for.
void run_workers(int workers, const std::function<void(int)>& work);

}  // namespace layertap
