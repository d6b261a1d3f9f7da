#include "rows.hpp"

#include <cmath>

namespace layertap::LAYERTAP_ISA {

void layer_norm(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, const float* weight,
                const float* bias, float eps, float* out, std::int64_t out_stride, bfloat16*, std::int64_t) {
  for (std::int64_t m = 0; m < rows; ++m) {
    double mean = 0;
    double square = 0;
    for (std::int64_t c = 0; c < columns; ++c) mean += in[m * in_stride + c];
    mean /= static_cast<double>(columns);
    for (std::int64_t c = 0; c < columns; ++c) square += (in[m * in_stride + c] - mean) * (in[m * in_stride + c] - mean);
    const double by = 1 / std::sqrt(square / static_cast<double>(columns) + eps);
    for (std::int64_t c = 0; c < columns; ++c)
      out[m * out_stride + c] = static_cast<float>((in[m * in_stride + c] - mean) * by) * weight[c] + (bias ? bias[c] : 0);
  }
}

void to_operand(const float*, std::int64_t, std::int64_t, std::int64_t, Format, const Operand&) {}

void widen(const bfloat16*, std::int64_t, std::int64_t, std::int64_t, float*, std::int64_t) {}

void set_row(float* total, const float* row, float weight, std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; ++c) total[c] = weight * row[c];
}
void add_row(float* total, const float* row, float weight, std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; ++c) total[c] += weight * row[c];
}
void max_row(float* total, const float* row, std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; ++c) total[c] = row[c] > total[c] ? row[c] : total[c];
}
void min_row(float* total, const float* row, std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; ++c) total[c] = row[c] < total[c] ? row[c] : total[c];
}

}  // namespace layertap::LAYERTAP_ISA
