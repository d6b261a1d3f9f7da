#include "schedule.hpp"

#include <algorithm>
#include <queue>
#include <thread>

#include "model.hpp"

namespace layertap {

namespace {

constexpr std::int64_t panel_columns = 64;

// Reading a panel's weights takes about as long as multiplying this many rows with it.
constexpr std::int64_t rows_of_a_read = 16;

// Products of attention run at about half of the speed of those with weights.
constexpr double attention_factor = 2.0;

std::int64_t parts(std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit; }

// The rows and reads of the busiest member.
std::int64_t busiest(std::int64_t rows, std::int64_t panels, Grid grid) {
  const std::int64_t own_rows = grid.row_parts == 1 ? rows : std::min(rows, parts(parts(rows, row_unit), grid.row_parts) * row_unit);
  return parts(panels, grid.panel_parts) * (own_rows + rows_of_a_read);
}

double products_of_row(const Shape& shape) {
  const auto h = static_cast<double>(shape.hidden_size);
  const auto f = static_cast<double>(shape.intermediate_size);
  return h * (2 * h + 2 * static_cast<double>(shape.key_value_size())) + h * f * (shape.is_gated ? 3 : 2);
}

// A layer of a shard in multiply-adds: its products before the feed-forward, those of the feed-forward, and attention.
struct LayerWork {
  double query_key_value, output, up, down, attention;

  double first_half() const { return query_key_value + output + attention; }
  double all() const { return first_half() + up + down; }
};

LayerWork work_of(const Shard& shard, const Shape& shape, int layers) {
  const auto rows = static_cast<double>(shard.rows());
  const auto h = static_cast<double>(shape.hidden_size);
  const double inner = h * static_cast<double>(shape.intermediate_size);
  LayerWork work{.query_key_value = rows * h * (h + 2 * static_cast<double>(shape.key_value_size())),
                 .output = rows * h * h,
                 .up = rows * inner * (shape.is_gated ? 2 : 1),
                 .down = rows * inner,
                 .attention = 0};
  work.attention = std::max(0.0, shard.cost / layers - work.all());
  return work;
}

// The time of half a layer with some members, in multiply-adds of one thread.
double time_of_half(const Shard& shard, const Shape& shape, int layers, int members, bool is_feed_forward) {
  const LayerWork work = work_of(shard, shape, layers);
  const auto share = [&](std::int64_t columns) {
    const std::int64_t panels = parts(columns, panel_columns);
    return static_cast<double>(busiest(shard.rows(), panels, grid_of(shard.rows(), panels, members))) /
           static_cast<double>(busiest(shard.rows(), panels, {1, 1}));
  };
  if (is_feed_forward) return work.up * share(shape.intermediate_size) + work.down * share(shape.hidden_size);
  const std::int64_t heads = (shard.sequence_end - shard.sequence_begin) * shape.num_attention_heads;
  return work.query_key_value * share(shape.hidden_size + 2 * shape.key_value_size()) + work.output * share(shape.hidden_size) +
         work.attention * static_cast<double>(parts(heads, members)) / static_cast<double>(heads);
}

// A shard under way in a simulation.
struct Run {
  std::size_t shard;
  int half = 0, members = 1, waiting = 0;  // halves of layers
  bool begun = false;
};

}  // namespace

Grid grid_of(std::int64_t rows, std::int64_t panels, int members) {
  Grid best{1, 1};
  for (int row_parts = 1; row_parts <= members; ++row_parts) {
    if (row_parts > 1 && parts(rows, row_unit) < row_parts) break;
    const Grid grid{row_parts, members / row_parts};
    if (busiest(rows, panels, grid) < busiest(rows, panels, best)) best = grid;
  }
  return best;
}

double cost_of_sequence(const Shape& shape, const std::vector<std::int64_t>& windows, std::int64_t length) {
  const auto rows = static_cast<double>(length);
  double pairs = 0;
  for (const std::int64_t window : windows) pairs += rows * static_cast<double>(window == 0 ? length : std::min(length, 2 * window + 1));
  return rows * products_of_row(shape) * static_cast<double>(windows.size()) +
         attention_factor * 2 * static_cast<double>(shape.hidden_size) * pairs;
}

std::optional<std::size_t> Schedule::take() {
  const std::size_t next = next_.fetch_add(1, std::memory_order_relaxed);
  if (next >= partition_.order.size()) return std::nullopt;
  return partition_.order[next];
}

ShardTeam* Schedule::team_to_join(const Cancellation& cancellation) {
  constexpr int patience = 2000;
  for (int spins = 0; !cancellation.is_stopped(); ++spins) {
    const bool all_are_joinable = joinable_.load(std::memory_order_acquire) == partition_.shards.size();
    const auto most = std::max_element(teams_.begin(), teams_.end(), [](const ShardTeam& a, const ShardTeam& b) {
      return a.threads.work_for_each() < b.threads.work_for_each();
    });
    if (most->threads.work_for_each() > 0) return &*most;
    if (all_are_joinable) return nullptr;
    if (spins < patience) {
      __builtin_ia32_pause();
    } else {
      std::this_thread::yield();
    }
  }
  return nullptr;
}

double attention_share(const Shard& shard, const Shape& shape, int layers) {
  const LayerWork work = work_of(shard, shape, layers);
  return work.first_half() / work.all();
}

double simulated_time(const WorkPartition& partition, const Shape& shape, int threads, int layers) {
  std::vector<Run> runs;
  struct End {  // of half a layer
    double time;
    std::size_t run;
    bool operator>(const End& other) const { return time > other.time; }
  };
  std::priority_queue<End, std::vector<End>, std::greater<>> ends;
  std::size_t next = 0;
  double last = 0;
  const auto begin_half = [&](std::size_t index, double now) {
    Run& run = runs[index];
    run.members += run.waiting;
    run.waiting = 0;
    run.begun = true;
    ends.push({now + time_of_half(partition.shards[run.shard], shape, layers, run.members, run.half % 2 == 1), index});
  };
  // here joining takes effect at the next half of a layer, in a run at once; before anything has begun, at the first one
  const auto work_for_each = [&](const Run& run) {
    const Shard& shard = partition.shards[run.shard];
    const int from = run.half + (run.begun ? 1 : 0);
    const double done = from / 2 + (from % 2 == 1 ? attention_share(shard, shape, layers) : 0.0);
    return shard.cost / layers * (layers - done) / (run.members + run.waiting + 1);
  };
  const auto free_thread = [&](double now, bool begins) {
    if (next < partition.order.size()) {
      runs.push_back({.shard = partition.order[next++]});
      if (begins) begin_half(runs.size() - 1, now);
      return;
    }
    const auto most = std::max_element(runs.begin(), runs.end(), [&](const Run& a, const Run& b) { return work_for_each(a) < work_for_each(b); });
    if (most != runs.end() && work_for_each(*most) > 0) ++most->waiting;
  };
  for (int thread = 0; thread < threads; ++thread) free_thread(0, false);
  for (std::size_t index = 0, begun = runs.size(); index < begun; ++index) begin_half(index, 0);
  while (!ends.empty()) {
    const End end = ends.top();
    ends.pop();
    last = end.time;
    Run& run = runs[end.run];
    if (++run.half < 2 * layers) {
      begin_half(end.run, end.time);
    } else {
      const int members = run.members;
      for (int member = 0; member < members; ++member) free_thread(end.time, true);
    }
  }
  return last;
}

}  // namespace layertap
