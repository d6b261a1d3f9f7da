#pragma once

#include "kernels.hpp"

namespace layertap::LAYERTAP_ISA {

void embed(const EmbeddingRows& in, std::int64_t rows, std::int64_t columns, float* out, std::int64_t out_stride);
void normalize(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, const RowNorm& norm,
               float* out, std::int64_t out_stride, bfloat16* rounded, std::int64_t rounded_stride);
void rotate(const Rotation& rotation);
void to_operand(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, Format format,
                const Operand& out);
void widen(const bfloat16* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, float* out,
           std::int64_t out_stride);
void set_row(float* total, const float* row, float weight, std::int64_t columns);
void add_row(float* total, const float* row, float weight, std::int64_t columns);
void max_row(float* total, const float* row, std::int64_t columns);
void min_row(float* total, const float* row, std::int64_t columns);

}  // namespace layertap::LAYERTAP_ISA
