#include "partition.hpp"

#include <algorithm>
#include <numeric>

namespace layertap {

namespace {

// With fewer rows, reading weights takes longer than using them; with more, the states of a shard leave the cache.
constexpr std::int64_t least_rows = 64;
constexpr std::int64_t most_rows = 256;
// Several shards a thread, so that threads finish at about the same time.
constexpr std::int64_t shards_a_thread = 4;

struct Extent {
  std::int64_t first = -1, last = -1;  // rows; -1: the segment is empty
};

Extent extent_of(const Segments& segments, std::int64_t s) {
  Extent extent;
  for (auto r = static_cast<std::size_t>(segments.offsets[static_cast<std::size_t>(s)]);
       r < static_cast<std::size_t>(segments.offsets[static_cast<std::size_t>(s) + 1]); ++r) {
    if (segments.begin[r] >= segments.end[r]) continue;
    if (extent.first < 0 || segments.begin[r] < extent.first) extent.first = segments.begin[r];
    extent.last = std::max<std::int64_t>(extent.last, segments.end[r] - 1);
  }
  return extent;
}

std::int64_t sequence_of(const Batch& batch, std::int64_t row) {
  const auto after = std::upper_bound(batch.cu_seqlens.begin(), batch.cu_seqlens.end(), row);
  return after - batch.cu_seqlens.begin() - 1;
}

}  // namespace

WorkPartition partition_work(const Batch& batch, const Program& program, int threads,
                             const std::function<double(std::int64_t)>& cost) {
  const std::int64_t sequences = batch.num_sequences();
  const std::int64_t tokens = batch.num_tokens();
  // joined[b]: a segment has rows on both sides of the boundary before sequence b
  std::vector<char> joined(static_cast<std::size_t>(sequences) + 1, 0);
  for (const Segments& segments : program.segments) {
    for (std::int64_t s = 0; s < segments.size(); ++s) {
      const Extent extent = extent_of(segments, s);
      if (extent.first < 0) continue;
      const std::int64_t last = sequence_of(batch, extent.last);
      for (std::int64_t b = sequence_of(batch, extent.first) + 1; b <= last; ++b) joined[static_cast<std::size_t>(b)] = 1;
    }
  }
  const std::int64_t target = std::clamp(tokens / (shards_a_thread * threads), least_rows, most_rows);
  WorkPartition partition;
  partition.squares.push_back(0);
  for (std::size_t b = 1; b < batch.cu_seqlens.size(); ++b) {
    const std::int64_t length = batch.cu_seqlens[b] - batch.cu_seqlens[b - 1];
    partition.squares.push_back(partition.squares.back() + length * length);
  }
  std::int64_t begin = 0;
  double work = 0;
  for (std::int64_t b = 1; b <= sequences; ++b) {
    work += cost(batch.cu_seqlens[static_cast<std::size_t>(b)] - batch.cu_seqlens[static_cast<std::size_t>(b) - 1]);
    if (b < sequences && joined[static_cast<std::size_t>(b)] != 0) continue;
    // end the shard where the next sequence, or the next few that are joined, would make it too large
    std::int64_t next = b + 1;
    while (next < sequences && joined[static_cast<std::size_t>(next)] != 0) ++next;
    const auto row = [&](std::int64_t sequence) -> std::int64_t { return batch.cu_seqlens[static_cast<std::size_t>(sequence)]; };
    if (b == sequences || row(next) - row(begin) > target) {
      partition.shards.push_back({begin, b, row(begin), row(b), work});
      begin = b;
      work = 0;
    }
  }
  partition.order.resize(partition.shards.size());
  std::iota(partition.order.begin(), partition.order.end(), std::size_t{0});
  std::stable_sort(partition.order.begin(), partition.order.end(),
                   [&](std::size_t a, std::size_t b) { return partition.shards[a].cost > partition.shards[b].cost; });
  for (const Segments& segments : program.segments) {
    std::vector<std::vector<std::int32_t>> own(partition.shards.size());
    for (std::int64_t s = 0; s < segments.size(); ++s) {
      const std::int64_t row = std::max<std::int64_t>(extent_of(segments, s).first, 0);
      const auto after = std::upper_bound(partition.shards.begin(), partition.shards.end(), row,
                                          [](std::int64_t value, const Shard& shard) { return value < shard.row_begin; });
      own[static_cast<std::size_t>(after - partition.shards.begin()) - 1].push_back(static_cast<std::int32_t>(s));
    }
    partition.segments.push_back(std::move(own));
  }
  return partition;
}

}  // namespace layertap
