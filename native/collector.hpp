// Takes hidden states as they appear and keeps only what a program asks of them: folds over layers, then reduces over
// segments, in the order of the rows.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "batch.hpp"
#include "buffer.hpp"
#include "kernels.hpp"
#include "partition.hpp"

namespace layertap {

// Hidden states of some rows of a shard.
struct States {
  const float* data;         // [rows, stride]
  std::int64_t stride;
  std::int64_t rows;
  const std::int32_t* kept;  // [rows] the shard's rows that these are, ascending, or null: all of them
};

class Collector {
 public:
  Collector(const Kernels& kernels, const Program& program, const WorkPartition& partition, std::int64_t hidden);

  // Number of floats that a team needs to fold the states of a shard of up to `rows` rows.
  std::size_t fold_floats(std::int64_t rows) const { return folding_ * static_cast<std::size_t>(rows * padded(hidden_)); }
  bool wants_pooler() const { return pooler_ != nullptr; }

  // Whether a capture asks for a state as it is after the final norm.
  bool wants_normed(int layer) const;

  // Whether anything is taken of state `layer`.
  bool wants(int layer) const;
  // Takes columns [begin, end) of state `layer` of a shard; each member of a team takes a part. The last state of a model
  // with a final norm comes twice, and `unnormed` says whether this is the state before the norm.
  void take(int layer, std::optional<bool> unnormed, const States& states, std::size_t shard, float* folds,
            std::int64_t begin, std::int64_t end) const;

  // The input rows of the pooler, [segments of the shard, padded(H)]: their number, copying them, and storing the output.
  std::int64_t pooler_rows(std::size_t shard) const;
  void take_pooler_rows(const States& states, std::size_t shard, float* rows, std::int64_t begin, std::int64_t end) const;
  void put_pooled(const float* pooled, std::int64_t stride, std::size_t shard, std::int64_t begin, std::int64_t end) const;

 private:
  using Own = std::vector<std::int32_t>;

  const Own& segments_of(const Capture& capture, std::size_t shard) const;
  void reduce(const Capture& capture, const States& states, std::size_t shard, std::int64_t begin, std::int64_t end) const;
  void reduce_segment(const Capture& capture, const States& states, std::int64_t row_begin, std::int32_t segment,
                      float* out, std::int64_t begin, std::int64_t end) const;

  const Kernels& kernels_;
  const Program& program_;
  const WorkPartition& partition_;
  std::int64_t hidden_;
  std::size_t folding_ = 0;
  const Capture* pooler_ = nullptr;
};

}  // namespace layertap
