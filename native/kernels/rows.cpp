#include "rows.hpp"

#include <cmath>

namespace layertap::LAYERTAP_ISA {

void embed(const EmbeddingRows& in, std::int64_t rows, std::int64_t columns, float* out, std::int64_t out_stride) {
  for (std::int64_t m = 0; m < rows; ++m)
    for (std::int64_t c = 0; c < columns; ++c) {
      const auto of = [&](const Table& table, std::int64_t id) {
        return table.data == nullptr ? 0.0F : static_cast<const float*>(table.data)[id * table.stride + c];
      };
      const std::int32_t type = in.token_type_ids == nullptr ? 0 : in.token_type_ids[m];
      const std::int32_t position = in.positions.data == nullptr ? 0 : in.position_ids[m];
      out[m * out_stride + c] = of(in.words, in.input_ids[m]) + of(in.types, type) + of(in.positions, position);
    }
}

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
