// Cuts a batch into shards: runs of whole sequences that go through all layers on their own.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.hpp"

namespace layertap {

struct Shard {
  std::int64_t sequence_begin, sequence_end;
  std::int64_t row_begin, row_end;

  std::int64_t rows() const { return row_end - row_begin; }
};

struct Cut {
  std::vector<Shard> shards;
  bool together;  // the threads work on each shard together; otherwise each takes shards of its own
  // [segments of the program][shard]: the segments whose rows lie in it
  std::vector<std::vector<std::vector<std::int32_t>>> segments;
  // [B + 1]: of the sequences before each, the squares of their lengths summed: where its attention maps begin
  std::vector<std::int64_t> squares;
};

// No segment has rows in two shards. What is cut where changes speed only.
Cut cut(const Batch& batch, const Program& program, int threads);

}  // namespace layertap
