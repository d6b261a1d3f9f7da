// Threads that work on a shard together.
//
// A shard is a sequence of steps. The members of a team claim the units of a step, some at a time, and go on to the next step when
// all units are finished, whoever finished them. So a thread that does not run at the moment, on a busy machine or because
// its processor slept, keeps others waiting only while it holds units: the others do the rest without it, and it passes over
// the steps that it missed. Who is there affects speed only.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

namespace layertap {

struct Part {
  std::int64_t begin, end;
};

class ThreadTeam {
 public:
  // Where a member begins: the shard under way, and the number of its first step.
  struct Entry {
    std::size_t shard;
    std::uint32_t step;
  };

  // Members present.
  int size() const { return size_.load(std::memory_order_relaxed); }

  // Called by the leader: begins a shard, which others may join from now on.
  Entry begin(std::size_t shard, double work);
  // Called by the leader on its way: the work that is left.
  void report(double work_left);
  // Called by the first member that has passed all steps of a shard, or by those that find the run cancelled.
  void end(const Entry& entry);

  // The work that would be left for each member if one more thread joined; 0: there is none to join.
  double work_for_each() const { return work_left_.load(std::memory_order_relaxed) / (size() + 1); }
  // Joins the shard under way, if there is one; a member that joined leaves when it is done.
  std::optional<Entry> join();
  void leave() { size_.fetch_sub(1, std::memory_order_relaxed); }

  // Some of the `units` of a step that nobody has claimed, or nothing where none is left. All of them for a member alone;
  // otherwise units of one line of `line` units.
  std::optional<Part> claim(std::uint32_t step, std::int64_t units, std::int64_t line) {
    std::uint64_t claimed = claimed_.load(std::memory_order_acquire);
    while (is_of(claimed, step)) {
      const auto begin = static_cast<std::int64_t>(claimed & 0xffffffffU);
      if (begin == units) break;
      const std::int64_t members = size();
      std::int64_t end = units;
      if (members > 1 || begin > 0) {
        // fewer and fewer, so that all end at about the same time
        const std::int64_t some = (units - begin + 2 * members - 1) / (2 * members);
        end = begin + (some < line - begin % line ? some : line - begin % line);
      }
      if (claimed_.compare_exchange_weak(claimed, claimed + static_cast<std::uint64_t>(end - begin), std::memory_order_acq_rel,
                                         std::memory_order_acquire))
        return Part{begin, end};
    }
    return std::nullopt;
  }

  // Finishes units that this member has claimed. What it wrote is visible to all who pass the step.
  void finish(std::uint32_t step, Part part, std::int64_t units) {
    const std::int64_t own = part.end - part.begin;
    if (finished_units_.fetch_add(own, std::memory_order_acq_rel) + own < units) return;
    finished_units_.store(0, std::memory_order_relaxed);
    claimed_.store(static_cast<std::uint64_t>(step + 1) << 32, std::memory_order_release);
    passes_.fetch_add(1, std::memory_order_release);
    passes_.notify_all();
  }

  // Waits a little until all units of a step are finished: about as long as a unit takes, since waking a thread that sleeps
  // takes longer, most of all on a virtual machine. False where they are not.
  bool wait_briefly(std::uint32_t step) const {
    constexpr int pauses = 64;  // between two looks at the clock; one takes 15 to 50 ns
    const auto begin = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < pauses; ++i) {
        if (!is_of(claimed_.load(std::memory_order_acquire), step)) return true;
        __builtin_ia32_pause();
      }
    } while (std::chrono::steady_clock::now() - begin < patience);
    return !is_of(claimed_.load(std::memory_order_acquire), step);
  }

  // Sleeps until all units of a step are finished: others may need this core, and on a busy machine a thread that yields in
  // a loop is scheduled last.
  void sleep_until_passed(std::uint32_t step) const {
    for (;;) {
      const std::uint32_t seen = passes_.load(std::memory_order_acquire);
      if (!is_of(claimed_.load(std::memory_order_acquire), step)) return;
      passes_.wait(seen, std::memory_order_acquire);
    }
  }

 private:
  static bool is_of(std::uint64_t claimed, std::uint32_t step) { return static_cast<std::uint32_t>(claimed >> 32) == step; }

  static constexpr std::chrono::microseconds patience{400};
  std::atomic<std::uint64_t> claimed_{0};  // the step under way, and how many of its units are claimed
  std::atomic<std::int64_t> finished_units_{0};
  std::atomic<std::uint32_t> passes_{0};  // counts finished steps, a little later; threads sleep on it
  std::atomic<int> size_{1};
  std::atomic<double> work_left_{0.0};
  std::mutex lock_;  // of what follows
  Entry entry_{};
  bool is_under_way_ = false;
};

// Sleeps until there may be more to do.
using Rest = std::function<void()>;

// Calls work(0) on this thread and work(1), ..., work(workers - 1) on threads of their own, or on fewer where the process
// may not start as many. Work that returns a rest is called again after it. Once work(0) is done it waits for those that
// work; a thread that rests, or comes later, does nothing more and is not waited for. A rest owns what it refers to.
void run_workers(int workers, const std::function<Rest(int)>& work);

}  // namespace layertap
