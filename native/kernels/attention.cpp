#include "attention.hpp"

#include <cmath>

namespace layertap::LAYERTAP_ISA {

std::size_t attention_scratch(std::int64_t num_keys, std::int64_t) {
  return static_cast<std::size_t>(padded(num_keys)) * sizeof(float);
}

void attention(const AttentionHead& h, void* scratch) {
  auto* scores = static_cast<float*>(scratch);
  const auto* q = static_cast<const float*>(h.queries);
  const auto* k = static_cast<const float*>(h.keys);
  const auto* v = static_cast<const float*>(h.values);
  for (std::int64_t i = 0; i < h.num_queries; ++i) {
    float top = -INFINITY;
    for (std::int64_t j = 0; j < h.num_keys; ++j) {
      float s = 0;
      for (std::int64_t d = 0; d < h.head_size; ++d) s += q[i * h.query_stride + d] * k[j * h.stride + d];
      scores[j] = s * h.scale;
      top = scores[j] > top ? scores[j] : top;
    }
    float total = 0;
    for (std::int64_t j = 0; j < h.num_keys; ++j) total += scores[j] = std::exp(scores[j] - top);
    for (std::int64_t d = 0; d < h.head_size; ++d) {
      float s = 0;
      for (std::int64_t j = 0; j < h.num_keys; ++j) s += scores[j] * v[j * h.stride + d];
      static_cast<float*>(h.out)[i * h.out_stride + d] = s / total;
    }
    if (h.probabilities != nullptr)
      for (std::int64_t j = 0; j < h.num_keys; ++j) h.probabilities[i * h.num_keys + j] = scores[j] / total;
  }
}

}  // namespace layertap::LAYERTAP_ISA
