// Matrix products with packed weights: panels of 64 columns; along K groups of 32 bits (1 float32, 2 bfloat16, 4 int8),
// their number rounded up to a multiple of 16 with zeros: 32-bit words [panel][part][group][64 columns]. A vector kernel
// multiplies one group of a row, broadcast, with vectors of columns. The tile kernel orders the same number of bytes
// differently, for the formats that it multiplies (product_tiles.hpp).
#pragma once

#include "kernels.hpp"

namespace layertap::LAYERTAP_ISA {

constexpr std::int64_t panel_columns = 64;

// Values of K in a 32-bit group.
constexpr std::int64_t group_size(Format format) {
  return format == Format::float32 ? 1 : format == Format::int8 ? 4 : 2;
}

constexpr std::int64_t groups_of(Format format, std::int64_t inner) {
  return (inner + group_size(format) - 1) / group_size(format);
}

constexpr std::int64_t padded_groups(Format format, std::int64_t inner) {
  return (groups_of(format, inner) + 15) / 16 * 16;
}

// Distance in 32-bit words from one part to the next, and from one panel to the next.
constexpr std::int64_t part_words(Format format, std::int64_t inner) {
  return padded_groups(format, inner) * panel_columns;
}
constexpr std::int64_t panel_words(Format format, std::int64_t inner) {
  return parts_of(format) * part_words(format, inner);
}

std::size_t packed_bytes(Format format, std::int64_t rows, std::int64_t inner);
void pack(const float* weights, std::int64_t stride, PackedMatrix& matrix);
std::size_t product_scratch(std::int64_t inner);
void product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
             std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue, void* scratch);

}  // namespace layertap::LAYERTAP_ISA
