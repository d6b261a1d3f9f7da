// The loaded weights of one encoder, in the layout that the kernels read.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "arena.hpp"
#include "buffer.hpp"
#include "distances.hpp"
#include "kernels.hpp"
#include "matrix.hpp"
#include "rotary.hpp"

namespace layertap {

enum class Precision : std::uint8_t { float32, float32_high, bfloat16, int8 };

// Sizes and structure of a model; fields are named as in Hugging Face configs.
struct Shape {
  std::int64_t hidden_size;
  std::int64_t num_attention_heads;
  std::int64_t intermediate_size;
  std::int64_t embedding_size;  // columns of the tables; hidden_size where no projection follows
  Activation hidden_act;
  float layer_norm_eps;
  std::int64_t num_key_value_heads;  // each serves several query heads
  bool is_pre_norm;                  // norms precede attention and feed-forward instead of following each residual sum
  bool has_rms_norms;
  bool is_gated;          // the feed-forward is down(act(gate(x)) * up(x))
  bool projection_first;  // embeddings are projected before their norm

  std::int64_t head_size() const { return hidden_size / num_attention_heads; }
  std::int64_t key_value_size() const { return head_size() * num_key_value_heads; }
  std::int64_t embedding_norm_size() const { return projection_first ? hidden_size : embedding_size; }
};

// Weight and bias of a norm, [columns] each. The bias may be empty; a norm without a weight does not exist.
struct Norm {
  std::vector<float> weight, bias;

  bool exists() const { return !weight.empty(); }
};

inline RowNorm row_norm(const Norm& norm, const Shape& shape) {
  return {norm.weight.data(), norm.bias.empty() ? nullptr : norm.bias.data(), shape.layer_norm_eps, shape.has_rms_norms};
}

// The tables stay where they are; the caller keeps them alive as long as the encoder.
struct Embeddings {
  Table words, positions, types;
  Norm norm;
  std::optional<Matrix> projection;  // [hidden_size, embedding_size]
};

// Added to scores: [num_attention_heads, 2 * longest - 1], by distance (key minus query) from 1 - longest to longest - 1.
struct DistanceBias {
  Buffer values;
  std::int64_t longest;
};

struct Block {
  Matrix query_key_value, attention_output;
  std::optional<Matrix> gate;
  Matrix intermediate, output;
  Norm attention_norm, feed_forward_norm;  // after either half, or before it
  // int8: the inner column whose weights stand out most is added in float32, and is zero in the matrix `output`. Sharing
  // a scale with it would leave few steps to the other inner values of a row.
  std::int64_t outlier_column = -1;
  std::vector<float> outlier_weights;             // [padded(hidden_size)]
  DistanceHeads distance_keys, distance_queries;  // disentangled attention; empty where scores have no such term
};

// A layer: a block, which other layers may share, and what is particular to this layer.
struct Layer {
  int block;
  std::int64_t window;  // largest distance at which tokens attend to each other; 0: no limit
  int rotary;           // index into the sets of rotary angles; -1: none
};

// An immutable snapshot of the parts loaded so far. Loading publishes a new snapshot with one more part, which shares all
// other parts with the one before. A run keeps the snapshot that it began with, whatever is loaded meanwhile.
struct Model {
  const Kernels& kernels;
  Format format;            // of products over hidden states
  Format attention_format;  // of queries, keys, values and context
  Shape shape;
  std::vector<Layer> layers;
  std::vector<std::shared_ptr<Rotary>> rotary;  // safe to share: its angles grow under a lock of its own
  std::shared_ptr<Arena> arena;                 // memory of all matrices; only loading takes from it
  std::shared_ptr<const Embeddings> embeddings;
  std::shared_ptr<const DistanceBias> distance_bias;
  std::shared_ptr<const Distances> distances;
  std::shared_ptr<const DistanceColumns> distance_columns;
  std::vector<std::shared_ptr<const Block>> blocks;
  std::shared_ptr<const Norm> final_norm;  // of a pre-norm encoder
  std::shared_ptr<const Matrix> pooler;

  const Layer& layer(int index) const { return layers[static_cast<std::size_t>(index)]; }
  const Block& block_of(int index) const { return *blocks[static_cast<std::size_t>(layer(index).block)]; }
  std::size_t weight_bytes() const;
};

// A model without weights. Throws std::invalid_argument where sizes contradict each other or the kernels lack the precision.
Model empty_model(const Kernels& kernels, Precision precision, const Shape& shape, std::vector<Layer> layers,
                  const std::vector<std::vector<float>>& frequencies);

// Weights as they are stored: contiguous float32, which loading copies.
struct EmbeddingWeights {
  Table words, positions, types;
  Norm norm;
  std::optional<Weight> projection;
  std::optional<Weight> distance_vectors;  // [2 * span, hidden_size]
  Norm distance_norm;
  std::optional<Weight> distance_bias;  // see DistanceBias
};

struct BlockWeights {
  Weight query, key, value, attention_output, intermediate, output;
  std::optional<Weight> gate;
  Norm attention_norm, feed_forward_norm;
  std::optional<Weight> distance_keys, distance_queries;
};

// Each returns `model` with one part more. They throw std::invalid_argument where a part does not fit the model or is
// there already.
Model with_embeddings(Model model, EmbeddingWeights weights);
Model with_block(Model model, const BlockWeights& weights);
Model with_final_norm(Model model, Norm norm);
Model with_pooler(Model model, const Weight& dense);
// See DistanceColumns::reach.
Model with_distances_reached(Model model, const std::int32_t* vectors, std::int64_t longest);

}  // namespace layertap
