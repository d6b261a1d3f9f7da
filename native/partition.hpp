// Partitions the work of a run: shards of whole sequences that pass through all layers independently of each other.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "batch.hpp"

namespace layertap {

struct Shard {
  std::int64_t sequence_begin, sequence_end;
  std::int64_t row_begin, row_end;
  double cost;  // multiply-adds in all layers

  std::int64_t rows() const { return row_end - row_begin; }
};

struct WorkPartition {
  std::vector<Shard> shards;
  std::vector<std::size_t> order;  // in which shards are begun: those that take longest first
  // [segments of the program][shard]: indices of the segments whose rows lie in the shard
  std::vector<std::vector<std::vector<std::int32_t>>> segments;
  // [B + 1]: sum of the squared lengths of the sequences before each one, which is where its attention maps begin
  std::vector<std::int64_t> squares;
};

// No segment has rows in two shards. `cost` gives the multiply-adds of a sequence of a length. The partition affects
// speed only, never results.
WorkPartition partition_work(const Batch& batch, const Program& program, int threads,
                             const std::function<double(std::int64_t)>& cost);

}  // namespace layertap
