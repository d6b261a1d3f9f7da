// Memory for shards on their way through a model, and for the threads that work on them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "buffer.hpp"
#include "kernels.hpp"
#include "model.hpp"

namespace layertap {

// A stride for rows that a product reads many of at once: an odd number of cache lines, so that the rows do not all fall
// on the same few sets of the first cache (rows of 3,072 bfloat16 would).
constexpr std::int64_t spread(std::int64_t columns) { return padded(columns) | padding; }

// Rows of the feed-forward that pass through both of its products together. All of a shard, as a rule: the weights are read
// once for these rows, which costs more than reading inner columns that have left the second cache.
inline std::int64_t inner_rows(const Model& model) {
  constexpr std::int64_t cache_bytes = 4 << 20;
  const std::int64_t row_bytes = spread(model.shape.intermediate_size) * (model.format == Format::bfloat16 ? 2 : 4);
  return std::clamp(cache_bytes / row_bytes / 16 * 16, std::int64_t{48}, std::int64_t{256});
}

// Queries of a windowed layer that go through attention together, with the keys that any of them sees. They are the
// queries of the same places however many of them are needed, which keeps their bits the same.
constexpr std::int64_t near_queries = 128;

// Memory for rows of numbers.
class RowBuffer {
 public:
  RowBuffer() = default;
  RowBuffer(std::int64_t rows, std::int64_t stride, Format format = Format::float32)
      : data_(static_cast<std::size_t>(rows * stride * value_bytes(format))),
        rows_{data_.as<void>(), stride, rows, format} {}

  const Rows& rows() const { return rows_; }
  float* floats() const { return rows_.floats(); }

 private:
  Buffer data_;
  Rows rows_;
};

// Memory for rows in the format of a product.
class OperandBuffer {
 public:
  OperandBuffer() = default;
  OperandBuffer(Format format, std::int64_t rows, std::int64_t columns) {
    const std::int64_t stride = spread(columns);
    data_ = Buffer(static_cast<std::size_t>(parts_of(format) * rows * stride * value_bytes(format)));
    if (format == Format::int8) {
      scales_ = Buffer(static_cast<std::size_t>(rows) * sizeof(float));
      zeros_ = Buffer(static_cast<std::size_t>(rows) * sizeof(float));
    }
    operand_ = {data_.as<void>(), stride, rows * stride, scales_.as<float>(), zeros_.as<float>()};
  }

  const Operand& operand() const { return operand_; }

 private:
  Buffer data_, scales_, zeros_;
  Operand operand_;
};

// How large a workspace must be.
struct Needs {
  std::int64_t rows = 0;        // of a shard
  std::int64_t longest = 0;     // tokens of a sequence
  std::int64_t pooled = 0;      // rows of the pooler
  std::size_t fold_floats = 0;  // see Collector
  bool maps = false;            // attention probabilities

  bool fit(const Needs& other) const {
    return rows <= other.rows && longest <= other.longest && pooled <= other.pooled && fold_floats <= other.fold_floats &&
           maps <= other.maps;
  }
};

struct Workspace {
  Needs made_for;
  RowBuffer tables;         // [rows, padded(embedding_size)], where a projection follows
  OperandBuffer projected;  // `tables` as an operand
  RowBuffer hidden;         // [rows, padded(H)], the residual stream
  RowBuffer normed;         // `hidden` after a norm, where it is not normalised itself
  RowBuffer kept;           // hidden states of the rows that are needed of the last layer
  RowBuffer kept_normed;
  OperandBuffer input;        // hidden states as an operand, where that is not float32
  RowBuffer query_key_value;  // [rows, padded(H) + 2 padded(keys)], as attention reads it
  OperandBuffer kept_input;
  RowBuffer kept_queries;  // [rows, padded(H)]
  RowBuffer context;       // [rows, padded(H)], as attention writes it
  RowBuffer wide;          // [rows, padded(H)]: context as float32, on its way to an operand
  OperandBuffer context_operand;
  RowBuffer inner;  // [inner_rows, padded(F)]: float32 on its way to an operand, or the operand itself
  OperandBuffer inner_operand;
  Buffer folds;
  RowBuffer pooler_rows, pooled_rows;  // [pooled, padded(H)]
  OperandBuffer pooler_operand;
};

// Memory of one thread, whichever shard it works on.
struct ThreadSpace {
  Needs made_for;
  Buffer scratch;
  RowBuffer query_distances, key_distances;  // a head's products [longest, columns of distances]
  Buffer maps;                               // attention probabilities [longest, longest] of one head
  Buffer near_maps;                          // probabilities of some queries and the keys in their window
};

// Every model that an encoder publishes once its embeddings are loaded needs the same memory.
std::unique_ptr<Workspace> make_workspace(const Model& model, const Needs& needs);
std::unique_ptr<ThreadSpace> make_thread_space(const Model& model, const Needs& needs);

// Workspaces, or thread spaces, of earlier runs. Safe to use from several threads.
template <class Space>
class Spares {
 public:
  // One that fits, or a new one.
  std::unique_ptr<Space> take(const Model& model, const Needs& needs);
  void give_back(std::unique_ptr<Space> space);

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<Space>> spare_;
};

extern template class Spares<Workspace>;
extern template class Spares<ThreadSpace>;

}  // namespace layertap
