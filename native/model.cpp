#include "model.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace layertap {

namespace {

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

std::string brackets(std::int64_t rows, std::int64_t columns) {
  std::string text = "[";
  return text.append(std::to_string(rows)).append(", ").append(std::to_string(columns)).append("]");
}

Format product_format(const Kernels& kernels, Precision precision) {
  switch (precision) {
    case Precision::bfloat16:
      return Format::bfloat16;
    case Precision::int8:
      return Format::int8;
    case Precision::float32_high:
      return kernels.has_split ? Format::split2 : Format::float32;
    case Precision::float32:
      break;
  }
  return kernels.has_split ? Format::split3 : Format::float32;
}

void check_precision(const Kernels& kernels, Precision precision, const Shape& shape) {
  if ((precision == Precision::bfloat16 && !kernels.has_bfloat16) || (precision == Precision::int8 && !kernels.has_int8))
    refuse("instruction set '" + std::string(kernels.name) + "' has no products in " +
           (precision == Precision::int8 ? "int8" : "bfloat16"));
  // sums of int8 products are int32, and each product is at most 255 * 127
  constexpr std::int64_t most_int8_columns = INT32_MAX / (255 * 127);
  if (precision == Precision::int8 &&
      std::max({shape.hidden_size, shape.intermediate_size, shape.embedding_size}) > most_int8_columns)
    refuse("int8: a size of the model is above " + std::to_string(most_int8_columns) + ", and its sums could overflow");
}

void check_shape(const Shape& shape) {
  constexpr std::int64_t largest = 1 << 20;
  for (const std::int64_t size : {shape.hidden_size, shape.num_attention_heads, shape.intermediate_size, shape.embedding_size})
    if (size < 1 || size > largest) refuse("a size of the model is out of range (1 to " + std::to_string(largest) + ")");
  if (shape.hidden_size % shape.num_attention_heads != 0) refuse("the number of heads does not divide the hidden size");
  if (shape.num_key_value_heads < 1 || shape.num_attention_heads % shape.num_key_value_heads != 0)
    refuse("the number of heads of keys and values does not divide the number of heads");
}

void check_layers(const Shape& shape, const std::vector<Layer>& layers, const std::vector<std::vector<float>>& frequencies) {
  for (const std::vector<float>& own : frequencies)
    if (shape.head_size() % 2 != 0 || static_cast<std::int64_t>(own.size()) != shape.head_size() / 2)
      refuse("frequencies: each set needs one frequency for two columns of a head");
  for (const Layer& layer : layers)
    if (layer.block < 0 || layer.window < 0 || layer.rotary < -1 || layer.rotary >= static_cast<int>(frequencies.size()))
      refuse("layers: each needs a block, a window or 0, and the index of a set of frequencies or -1");
}

void check_table(const Table& table, const Shape& shape) {
  if (table.data == nullptr) return;
  if (table.stride != shape.embedding_size || table.rows < 1)
    refuse("a table of embeddings has " + std::to_string(table.stride) + " columns, but the model's have " +
           std::to_string(shape.embedding_size));
}

const Weight& checked(const Weight& weight, std::int64_t rows, std::int64_t columns) {
  if (weight.rows != rows || weight.columns != columns)
    refuse("a weight has the shape " + brackets(weight.rows, weight.columns) + ", but the model needs " + brackets(rows, columns));
  return weight;
}

Norm checked(Norm norm, std::int64_t size) {
  for (const std::vector<float>* vector : {&norm.weight, &norm.bias})
    if (!vector->empty() && static_cast<std::int64_t>(vector->size()) != size)
      refuse("a vector of a norm has " + std::to_string(vector->size()) + " elements, but the model needs " + std::to_string(size));
  if (norm.weight.empty() && !norm.bias.empty()) refuse("a norm has a bias but no weight");
  return norm;
}

Matrix packed(const Model& model, const std::vector<Weight>& parts) {
  return Matrix(model.kernels, model.format, parts, *model.arena);
}

std::shared_ptr<const Distances> distances_of(const Model& model, const Weight& vectors, const Norm& norm) {
  const Shape& shape = model.shape;
  constexpr std::int64_t most_vectors = 1 << 20;
  if (vectors.rows < 2 || vectors.rows % 2 != 0 || vectors.rows > most_vectors || vectors.columns != shape.hidden_size)
    refuse("vectors of distances have the shape " + brackets(vectors.rows, vectors.columns) + ", not [2 * span, hidden_size]");
  if (shape.num_key_value_heads != shape.num_attention_heads ||
      std::any_of(model.layers.begin(), model.layers.end(), [](const Layer& layer) { return layer.window > 0; }))
    refuse("vectors of distances cannot be combined with shared keys or windows");
  const std::int64_t stride = padded(shape.hidden_size);
  Buffer own(static_cast<std::size_t>(vectors.rows * stride) * sizeof(float));
  for (std::int64_t r = 0; r < vectors.rows; ++r)
    std::copy_n(vectors.data + r * shape.hidden_size, shape.hidden_size, own.as<float>() + r * stride);
  if (norm.exists())
    model.kernels.normalize(own.as<float>(), stride, vectors.rows, shape.hidden_size, row_norm(norm, shape), own.as<float>(),
                            stride, nullptr, 0);
  return std::make_shared<const Distances>(std::move(own), vectors.rows, shape.hidden_size);
}

std::shared_ptr<const DistanceBias> bias_of(const Shape& shape, const Weight& bias) {
  if (bias.rows != shape.num_attention_heads || bias.columns % 2 == 0)
    refuse("a bias by distance has the shape " + brackets(bias.rows, bias.columns) + ", not [heads, 2 * longest - 1]");
  const auto size = static_cast<std::size_t>(bias.rows * bias.columns);
  DistanceBias own{Buffer(size * sizeof(float)), (bias.columns + 1) / 2};
  std::copy_n(bias.data, size, own.values.as<float>());
  return std::make_shared<const DistanceBias>(std::move(own));
}

// The inner column whose largest weight is the largest multiple of its row's root mean square; -1 where there is none.
std::int64_t find_outlier_column(const Weight& weight) {
  std::int64_t column = -1;
  float most = -1;
  for (std::int64_t n = 0; n < weight.rows; ++n) {
    const float* row = weight.data + n * weight.columns;
    double squares = 0;
    for (std::int64_t k = 0; k < weight.columns; ++k) squares += static_cast<double>(row[k]) * row[k];
    const auto scale = static_cast<float>(std::sqrt(squares / static_cast<double>(weight.columns)));
    for (std::int64_t k = 0; k < weight.columns; ++k) {
      if (std::abs(row[k]) > most * scale) {
        most = std::abs(row[k]) / scale;
        column = k;
      }
    }
  }
  return column;
}

// Fills `output`, and for int8 what is kept apart from it; see Block::outlier_column.
void load_output(Block& block, const Model& model, const Weight& weight) {
  if (model.format == Format::int8) block.outlier_column = find_outlier_column(weight);
  if (block.outlier_column < 0) {
    block.output = packed(model, {weight});
    return;
  }
  std::vector<float> rest(weight.data, weight.data + weight.rows * weight.columns);
  block.outlier_weights.assign(static_cast<std::size_t>(padded(weight.rows)), 0.0F);
  for (std::int64_t n = 0; n < weight.rows; ++n)
    block.outlier_weights[static_cast<std::size_t>(n)] =
        std::exchange(rest[static_cast<std::size_t>(n * weight.columns + block.outlier_column)], 0.0F);
  block.output = packed(model, {{rest.data(), weight.rows, weight.columns, weight.bias}});
}

}  // namespace

std::size_t Model::weight_bytes() const {
  std::size_t total = embeddings != nullptr && embeddings->projection ? embeddings->projection->bytes() : 0;
  for (const auto& block : blocks) {
    total += block->query_key_value.bytes() + block->attention_output.bytes() + (block->gate ? block->gate->bytes() : 0) +
             block->intermediate.bytes() + block->output.bytes();
    for (const DistanceHeads* heads : {&block->distance_keys, &block->distance_queries})
      for (const Matrix& head : *heads) total += head.bytes();
  }
  return total + (pooler == nullptr ? 0 : pooler->bytes());
}

Model empty_model(const Kernels& kernels, Precision precision, const Shape& shape, std::vector<Layer> layers,
                  const std::vector<std::vector<float>>& frequencies) {
  check_shape(shape);
  check_precision(kernels, precision, shape);
  check_layers(shape, layers, frequencies);
  const bool is_narrow = kernels.has_bfloat16 && (precision == Precision::bfloat16 || precision == Precision::int8);
  Model model{kernels, product_format(kernels, precision), is_narrow ? Format::bfloat16 : Format::float32, shape,
              std::move(layers), {}, std::make_shared<Arena>(), {}, {}, {}, {}, {}, {}, {}};
  for (const std::vector<float>& own : frequencies) model.rotary.push_back(std::make_shared<Rotary>(own));
  return model;
}

Model with_embeddings(Model model, EmbeddingWeights weights) {
  // runs may rely on them from their first on, and on how much memory they take
  if (model.embeddings != nullptr) refuse("the embeddings are loaded already");
  const Shape& shape = model.shape;
  if (weights.words.data == nullptr) refuse("a table of words is needed");
  for (const Table* table : {&weights.words, &weights.positions, &weights.types}) check_table(*table, shape);
  // ALBERT projects embeddings even where the sizes are equal
  if (!weights.projection && shape.embedding_size != shape.hidden_size)
    refuse("tables of another width than the hidden states need a projection");
  Embeddings own{weights.words, weights.positions, weights.types, checked(std::move(weights.norm), shape.embedding_norm_size()), {}};
  if (weights.projection) own.projection = packed(model, {checked(*weights.projection, shape.hidden_size, shape.embedding_size)});
  if (weights.distance_vectors && weights.distance_bias) refuse("vectors of distances cannot be combined with a bias by distance");
  if (weights.distance_vectors)
    model.distances = distances_of(model, *weights.distance_vectors, checked(std::move(weights.distance_norm), shape.hidden_size));
  if (weights.distance_bias) model.distance_bias = bias_of(shape, *weights.distance_bias);
  model.embeddings = std::make_shared<const Embeddings>(std::move(own));
  return model;
}

Model with_block(Model model, const BlockWeights& weights) {
  if (model.embeddings == nullptr) refuse("the embeddings are loaded before the blocks");
  const Shape& shape = model.shape;
  const std::int64_t h = shape.hidden_size;
  const std::int64_t kv = shape.key_value_size();
  const std::int64_t f = shape.intermediate_size;
  if (weights.gate.has_value() != shape.is_gated) refuse("a block has a gate exactly where its model is gated");
  if ((weights.distance_keys || weights.distance_queries) != (model.distances != nullptr))
    refuse("a block has projections of distances exactly where there are vectors of distances");
  Block block;
  block.query_key_value = packed(model, {checked(weights.query, h, h), checked(weights.key, kv, h), checked(weights.value, kv, h)});
  block.attention_output = packed(model, {checked(weights.attention_output, h, h)});
  block.intermediate = packed(model, {checked(weights.intermediate, f, h)});
  load_output(block, model, checked(weights.output, h, f));
  if (weights.gate) block.gate = packed(model, {checked(*weights.gate, f, h)});
  block.attention_norm = checked(weights.attention_norm, h);
  block.feed_forward_norm = checked(weights.feed_forward_norm, h);
  if (!block.feed_forward_norm.exists() || (!shape.is_pre_norm && !block.attention_norm.exists()))
    refuse("a norm of the block is missing");
  const auto projected = [&](const std::optional<Weight>& dense) {
    if (!dense) return DistanceHeads();
    return model.distances->project(model.kernels, model.attention_format, checked(*dense, h, h), shape.num_attention_heads,
                                    *model.arena);
  };
  block.distance_keys = projected(weights.distance_keys);
  block.distance_queries = projected(weights.distance_queries);
  model.blocks.push_back(std::make_shared<const Block>(std::move(block)));
  return model;
}

Model with_final_norm(Model model, Norm norm) {
  if (!model.shape.is_pre_norm) refuse("a final norm belongs to a model whose norms come first");
  if (!norm.exists()) refuse("a final norm needs a weight");
  model.final_norm = std::make_shared<const Norm>(checked(std::move(norm), model.shape.hidden_size));
  return model;
}

Model with_pooler(Model model, const Weight& dense) {
  const std::int64_t h = model.shape.hidden_size;
  model.pooler = std::make_shared<const Matrix>(packed(model, {checked(dense, h, h)}));
  return model;
}

Model with_distances_reached(Model model, const std::int32_t* vectors, std::int64_t longest) {
  if (model.distances == nullptr) refuse("distances can be reached only after their vectors are loaded");
  const std::int64_t size = 2 * longest - 1;
  if (longest < 1 || !std::is_sorted(vectors, vectors + size) || vectors[0] < 0 || vectors[size - 1] >= model.distances->count())
    refuse("distances: the index of a vector for each distance, ascending");
  if (model.distance_columns == nullptr || model.distance_columns->longest < longest)
    model.distance_columns = std::make_shared<const DistanceColumns>(model.distances->reach(vectors, longest));
  return model;
}

}  // namespace layertap
