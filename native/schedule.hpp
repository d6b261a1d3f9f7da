// Who works on what: threads take shards of their own, those that take longest first, and help with the shards of others
// when none is left. So all threads end at about the same time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cancellation.hpp"
#include "partition.hpp"
#include "thread_team.hpp"

namespace layertap {

struct Shape;
struct Workspace;

// The threads that work on a shard, and the memory that they share. The memory comes with the first shard.
struct ShardTeam {
  ThreadTeam threads;
  Workspace* workspace = nullptr;
};

// How the members of a team divide a product: each takes some rows times some panels of columns.
struct Grid {
  int row_parts, panel_parts;
};

// Rows are divided in units of this: whole register tiles of every kernel.
constexpr std::int64_t row_unit = 48;

// The grid on which the busiest member has least to do.
Grid grid_of(std::int64_t rows, std::int64_t panels, int members);

// Multiply-adds of a sequence of some length in layers with these windows (0: no limit).
double cost_of_sequence(const Shape& shape, const std::vector<std::int64_t>& windows, std::int64_t length);

// The part of a layer's work that its attention takes, with the products around it; the rest is the feed-forward.
double attention_share(const Shard& shard, const Shape& shape, int layers);

// The work of a run as its threads take it. Safe to use from several threads.
class Schedule {
 public:
  Schedule(const WorkPartition& partition, std::vector<ShardTeam>& teams) : partition_(partition), teams_(teams) {}

  // The next shard that no thread has begun.
  std::optional<std::size_t> take();

  // Called by a thread that has taken a shard, once its team has reported: other threads may join from now on.
  void is_joinable() { joinable_.fetch_add(1, std::memory_order_release); }

  // Called by a thread that finds no shard left: the team that has most work left for each member, or null where no team
  // has any. Waits for shards that are taken, but not joinable yet.
  ShardTeam* team_to_join(const Cancellation& cancellation);

 private:
  const WorkPartition& partition_;
  std::vector<ShardTeam>& teams_;
  std::atomic<std::size_t> next_{0}, joinable_{0};
};

// The time that threads take for a partition, in multiply-adds of one thread, computed from costs alone: they take and join
// shards as in `Schedule`, and parts of a stage differ in size as they do in a run. Nothing is timed.
double simulated_time(const WorkPartition& partition, const Shape& shape, int threads, int layers);

}  // namespace layertap
