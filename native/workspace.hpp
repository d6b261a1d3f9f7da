// What a team keeps of one shard while it is under way.
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "kernels.hpp"

namespace layertap {

// A stride for rows that a product reads many of at once: an odd number of lines apart, so that they do not all fall on
// the same few sets of the first cache (rows of 3,072 bfloat16 would).
constexpr std::int64_t spread(std::int64_t columns) { return padded(columns) | padding; }

// Activations in the format of a product, [rows, columns].
class OperandBuffer {
 public:
  OperandBuffer() = default;
  OperandBuffer(Format format, std::int64_t rows, std::int64_t columns) {
    const std::int64_t stride = spread(columns);
    const std::int64_t parts = format == Format::split2 ? 2 : format == Format::split3 ? 3 : 1;
    const std::int64_t element = format == Format::float32 ? 4 : format == Format::int8 ? 1 : 2;
    data_ = Buffer(static_cast<std::size_t>(parts * rows * stride * element));
    if (format == Format::int8) {
      scales_ = Buffer(static_cast<std::size_t>(rows) * sizeof(float));
      zeros_ = Buffer(static_cast<std::size_t>(rows) * sizeof(float));
    }
    operand_ = {data_.as<void>(), stride, rows * stride, scales_.as<float>(), zeros_.as<float>()};
  }

  const Operand& operand() const { return operand_; }

 private:
  Buffer data_, scales_, zeros_;
  Operand operand_{};
};

// How large it must be.
struct Needs {
  std::int64_t rows = 0;        // of a shard
  std::int64_t longest = 0;     // tokens of a sequence
  std::int64_t pooled = 0;      // rows of the pooler
  std::size_t fold_floats = 0;  // see Collector
  bool maps = false;            // attention probabilities
  int members = 0;

  bool fit(const Needs& other) const {
    return rows <= other.rows && longest <= other.longest && pooled <= other.pooled && fold_floats <= other.fold_floats &&
           maps <= other.maps && members <= other.members;
  }
};

struct Workspace {
  Needs made_for;
  Buffer tables;             // float32 [rows, padded(embedding_size)], where a projection follows
  OperandBuffer projected;   // the same as an operand
  Buffer hidden;             // float32 [rows, padded(H)], the residual stream
  Buffer normed;             // the same behind a norm, where it is not normed itself
  Buffer kept;               // hidden states of the rows that are needed of the last one
  Buffer kept_normed;
  OperandBuffer input;       // hidden states as an operand, where that is not float32
  Buffer query_key_value;    // [rows, padded(H) + 2 padded(keys)], as attention takes it
  OperandBuffer kept_input;
  Buffer kept_queries;       // [rows, padded(H)]
  Buffer context;            // [rows, padded(H)], as attention gives it
  Buffer wide;               // float32 [rows, padded(H)]: context on its way to an operand
  OperandBuffer context_operand;
  Buffer inner;              // [block_rows, padded(F)]: float32 on its way to an operand, or the operand itself
  OperandBuffer inner_operand;
  Buffer folds;
  Buffer pooler_rows, pooled_rows;  // float32 [pooled, padded(H)]
  OperandBuffer pooler_operand;
  std::vector<Buffer> scratch;      // one a member
  // Disentangled attention, one a member: a head's products [longest, columns of distances].
  std::vector<Buffer> query_distances, key_distances;
  std::vector<Buffer> maps;         // one a member: attention probabilities [longest, longest] of one head
  std::vector<Buffer> near_maps;    // the same of some queries and the keys in their window
};

}  // namespace layertap
