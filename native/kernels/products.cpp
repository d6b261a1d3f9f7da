#include "products.hpp"

#include <cmath>
#include <cstring>

namespace layertap::LAYERTAP_ISA {

std::size_t packed_bytes(Format, std::int64_t rows, std::int64_t inner) {
  return static_cast<std::size_t>(padded(rows) * padded(inner)) * sizeof(float);
}

void pack(const float* weights, std::int64_t stride, PackedMatrix& matrix) {
  matrix.panels = padded(matrix.rows) / 64;
  auto* out = static_cast<float*>(matrix.data);
  for (std::int64_t n = 0; n < matrix.rows; ++n)
    for (std::int64_t k = 0; k < matrix.inner; ++k)
      out[(n / 64 * matrix.inner + k) * 64 + n % 64] = weights[n * stride + k];
}

std::size_t product_scratch(std::int64_t) { return 64; }

void product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
             std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& e, void*) {
  const auto* in = static_cast<const float*>(a.data);
  const auto* b = static_cast<const float*>(w.data);
  for (std::int64_t m = row_begin; m < row_end; ++m)
    for (std::int64_t n = panel_begin * 64; n < panel_end * 64; ++n) {
      float total = 0;
      for (std::int64_t k = 0; k < w.inner; ++k) total += in[m * a.stride + k] * b[(n / 64 * w.inner + k) * 64 + n % 64];
      if (e.bias != nullptr) total += e.bias[n];
      if (e.activation == Activation::gelu) total = 0.5F * total * (1.0F + std::erf(total * 0.70710678F));
      if (e.activation == Activation::tanh) total = std::tanh(total);
      if (e.residual != nullptr) total += e.residual[m * e.residual_stride + n];
      static_cast<float*>(e.out)[m * e.out_stride + n] = total;
    }
}

}  // namespace layertap::LAYERTAP_ISA
