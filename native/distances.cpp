#include "distances.hpp"

#include <algorithm>

namespace layertap {

std::int64_t Distances::first_column() const {
  const std::int64_t middle = count_ / 2 - 1;  // index of distance 0 in the reversed vectors
  return ((padding / 2 - middle) % padding + padding) % padding;
}

DistanceHeads Distances::project(const Kernels& kernels, Format format, const Weight& dense, std::int64_t num_heads,
                                 Arena& arena) const {
  const std::int64_t stride = padded(hidden_size_);
  Arena passing;
  const Matrix weights(kernels, Format::float32, {dense}, passing);
  Buffer projected(static_cast<std::size_t>(count_ * stride) * sizeof(float));
  const Buffer scratch(kernels.product_scratch(hidden_size_));
  kernels.product({.data = vectors_.as<void>(), .stride = stride}, 0, count_, weights.packed(), 0, weights.panels(),
                  {.bias = weights.bias(), .out = projected.as<void>(), .out_stride = stride}, scratch.as<void>());
  const std::int64_t head_size = hidden_size_ / num_heads;
  const std::int64_t first = first_column();
  std::vector<float> own(static_cast<std::size_t>(columns() * head_size), 0.0F);
  DistanceHeads heads;
  for (std::int64_t head = 0; head < num_heads; ++head) {
    // the table is ordered by query's place minus key's, columns by key's place minus query's
    for (std::int64_t r = 0; r < count_; ++r)
      std::copy_n(projected.as<float>() + (count_ - 1 - r) * stride + head * head_size, head_size,
                  own.data() + (first + r) * head_size);
    heads.push_back(Matrix(kernels, format, {{own.data(), columns(), head_size, nullptr}}, arena));
  }
  return heads;
}

DistanceColumns Distances::reach(const std::int32_t* vectors, std::int64_t longest) const {
  DistanceColumns reached;
  reached.longest = longest;
  const std::int64_t beyond = longest + distances_beyond;
  for (std::int64_t distance = -beyond; distance <= beyond; ++distance) {
    const std::int64_t backwards = longest - 1 + std::clamp(-distance, 1 - longest, longest - 1);
    reached.columns.push_back(static_cast<std::int32_t>(columns() - 1 - vectors[backwards]));
  }
  return reached;
}

}  // namespace layertap
