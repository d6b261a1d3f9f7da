#include "distances.hpp"

#include <algorithm>

namespace layertap {

std::int64_t Distances::first_column() const {
  const std::int64_t middle = count_ / 2 - 1;  // of the vectors backwards, that of distance 0
  return ((padding / 2 - middle) % padding + padding) % padding;
}

DistanceHeads Distances::project(const Kernels& kernels, Format format, const Weight& dense, std::int64_t num_heads,
                                 Arena& arena) const {
  const std::int64_t stride = padded(hidden_size_);
  Arena passing;
  const Matrix weights(kernels, Format::float32, {dense}, passing);
  Buffer projected(static_cast<std::size_t>(count_ * stride) * sizeof(float));
  const Buffer scratch(kernels.product_scratch(hidden_size_));
  kernels.product({vectors_.as<void>(), stride, 0, nullptr}, 0, count_, weights.packed(), 0, weights.panels(),
                  {weights.bias(), Activation::none, nullptr, 0, projected.as<void>(), stride, false}, scratch.as<void>());
  const std::int64_t head_size = hidden_size_ / num_heads;
  const std::int64_t first = first_column();
  std::vector<float> own(static_cast<std::size_t>(columns() * head_size), 0.0F);
  DistanceHeads heads;
  for (std::int64_t head = 0; head < num_heads; ++head) {
    // a key's place minus a query's ascends where the distances of the table descend
    for (std::int64_t r = 0; r < count_; ++r)
      std::copy_n(projected.as<float>() + (count_ - 1 - r) * stride + head * head_size, head_size,
                  own.data() + (first + r) * head_size);
    heads.push_back(Matrix(kernels, format, {{own.data(), columns(), head_size, nullptr}}, arena));
  }
  return heads;
}

void Distances::reach(const std::int32_t* vectors, std::int64_t longest) {
  auto more = std::make_shared<DistanceColumns>();
  more->longest = longest;
  const std::int64_t beyond = longest + distances_beyond;
  for (std::int64_t distance = -beyond; distance <= beyond; ++distance) {
    const std::int64_t backwards = longest - 1 + std::clamp(-distance, 1 - longest, longest - 1);
    more->columns.push_back(static_cast<std::int32_t>(columns() - 1 - vectors[backwards]));
  }
  const std::lock_guard guard(lock_);
  if (reached_ == nullptr || reached_->longest < longest) reached_ = std::move(more);
}

std::shared_ptr<const DistanceColumns> Distances::reached() const {
  const std::lock_guard guard(lock_);
  return reached_;
}

}  // namespace layertap
