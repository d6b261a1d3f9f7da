#include "matrix.hpp"

#include <algorithm>

namespace layertap {

Matrix::Matrix(const Kernels& kernels, Format format, const std::vector<Weight>& parts) {
  const std::int64_t inner = parts.front().columns;
  std::int64_t rows = 0;
  for (const Weight& part : parts) rows += padded(part.rows);
  Buffer weights(static_cast<std::size_t>(rows * inner) * sizeof(float));
  bias_ = Buffer(static_cast<std::size_t>(rows) * sizeof(float));
  std::int64_t row = 0;
  for (const Weight& part : parts) {
    std::copy_n(part.data, part.rows * inner, weights.as<float>() + row * inner);
    if (part.bias != nullptr) std::copy_n(part.bias, part.rows, bias_.as<float>() + row);
    row += padded(part.rows);
  }
  data_ = Buffer(kernels.packed_bytes(format, rows, inner));
  if (format == Format::int8) {
    scales_ = Buffer(static_cast<std::size_t>(rows) * sizeof(float));
    sums_ = Buffer(static_cast<std::size_t>(rows) * sizeof(float));
  }
  packed_ = {format, rows, inner, rows / kernels.panel, data_.as<void>(), scales_.as<float>(),
             sums_.as<float>()};
  kernels.pack(weights.as<float>(), inner, packed_);
}

}  // namespace layertap
