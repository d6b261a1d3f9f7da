#pragma once

#include "kernels.hpp"

namespace layertap::LAYERTAP_ISA {

std::size_t packed_bytes(Format format, std::int64_t rows, std::int64_t inner);
void pack(const float* weights, std::int64_t stride, PackedMatrix& matrix);
std::size_t product_scratch(std::int64_t inner);
void product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
             std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue, void* scratch);

}  // namespace layertap::LAYERTAP_ISA
