#include "matrix.hpp"

#include <algorithm>

#include "buffer.hpp"

namespace layertap {

Matrix::Matrix(const Kernels& kernels, Format format, const std::vector<Weight>& parts, Arena& arena) {
  const std::int64_t inner = parts.front().columns;
  std::int64_t rows = 0;
  for (const Weight& part : parts) rows += padded(part.rows);
  const auto take = [&](std::size_t bytes) {
    bytes_ += bytes;
    return arena.take(bytes);
  };
  const auto floats = [&] { return static_cast<float*>(take(static_cast<std::size_t>(rows) * sizeof(float))); };
  const Buffer weights(static_cast<std::size_t>(rows * inner) * sizeof(float));
  float* bias = floats();
  std::int64_t row = 0;
  for (const Weight& part : parts) {
    std::copy_n(part.data, part.rows * inner, weights.as<float>() + row * inner);
    if (part.bias != nullptr) std::copy_n(part.bias, part.rows, bias + row);
    row += padded(part.rows);
  }
  bias_ = bias;
  void* data = take(kernels.packed_bytes(format, rows, inner));
  const bool has_steps = format == Format::int8;
  packed_ = {format, rows, inner, rows / kernels.panel, data, has_steps ? floats() : nullptr, has_steps ? floats() : nullptr};
  kernels.pack(weights.as<float>(), inner, packed_);
}

}  // namespace layertap
