#include "products.hpp"

#include <cmath>

#include "bfloat16.hpp"
#include "product_lanes.hpp"
#include "product_tiles.hpp"

namespace layertap::LAYERTAP_ISA {

namespace {

// Where value k of column n is, in values of the format.
std::int64_t packed_at(const PackedMatrix& matrix, std::int64_t n, std::int64_t k, std::int64_t part) {
  const std::int64_t size = group_size(matrix.format);
#if defined(LAYERTAP_TILES)
  if (matrix.format != Format::float32)
    return tile_word(n, k / size, part, parts_of(matrix.format), padded_groups(matrix.format, matrix.inner)) * size +
           k % size;
#endif
  const std::int64_t word = n / panel_columns * panel_words(matrix.format, matrix.inner) +
                            part * part_words(matrix.format, matrix.inner) + k / size * panel_columns +
                            n % panel_columns;
  return word * size + k % size;
}

void pack_float32(const float* column, PackedMatrix& matrix, std::int64_t n) {
  float* out = static_cast<float*>(matrix.data) + packed_at(matrix, n, 0, 0);
  for (std::int64_t k = 0; k < matrix.inner; ++k) out[k * panel_columns] = column[k];
}

// Each part is what the ones before it left over, rounded.
void pack_bfloat16(const float* column, PackedMatrix& matrix, std::int64_t n) {
  auto* out = static_cast<bfloat16*>(matrix.data);
  const std::int64_t parts = parts_of(matrix.format);
  for (std::int64_t k = 0; k < matrix.inner; ++k) {
    float rest = column[k];
    for (std::int64_t part = 0; part < parts; ++part) {
      const bfloat16 rounded = to_bfloat16(rest);
      out[packed_at(matrix, n, k, part)] = rounded;
      rest -= from_bfloat16(rounded);
    }
  }
}

// Symmetric, the largest weight at 127. A column that is not finite gets the scale NaN, so that its sums are NaN.
void pack_int8(const float* column, PackedMatrix& matrix, std::int64_t n) {
  auto* out = static_cast<std::int8_t*>(matrix.data);
  float top = 0;
  bool finite = true;
  for (std::int64_t k = 0; k < matrix.inner; ++k) {
    const float size = std::fabs(column[k]);
    finite = finite && size < INFINITY;
    top = size > top ? size : top;
  }
  constexpr float smallest = 1e-30F;  // below it 127 / top is no good number: the column is zero
  matrix.scales[n] = finite ? (top < smallest ? 0.0F : top / 127.0F) : NAN;
  const float by = finite && top >= smallest ? 127.0F / top : 0.0F;
  std::int32_t total = 0;
  for (std::int64_t k = 0; k < matrix.inner; ++k) {
    const auto rounded = static_cast<std::int8_t>(finite ? std::lrint(column[k] * by) : 0);
    out[packed_at(matrix, n, k, 0)] = rounded;
    total += rounded;
  }
  matrix.sums[n] = static_cast<float>(total);
}

}  // namespace

std::size_t packed_bytes(Format format, std::int64_t rows, std::int64_t inner) {
  return static_cast<std::size_t>(padded(rows) / panel_columns * panel_words(format, inner)) * 4;
}

void pack(const float* weights, std::int64_t stride, PackedMatrix& matrix) {
  matrix.panels = padded(matrix.rows) / panel_columns;
  for (std::int64_t n = 0; n < matrix.rows; ++n) {
    if (matrix.format == Format::float32)
      pack_float32(weights + n * stride, matrix, n);
    else if (matrix.format == Format::int8)
      pack_int8(weights + n * stride, matrix, n);
    else
      pack_bfloat16(weights + n * stride, matrix, n);
  }
}

std::size_t product_scratch(std::int64_t) {
#if defined(LAYERTAP_TILES)
  return product_lanes_scratch() > product_tiles_scratch() ? product_lanes_scratch() : product_tiles_scratch();
#else
  return product_lanes_scratch();
#endif
}

void product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
             std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue, void* scratch) {
#if defined(LAYERTAP_TILES)
  if (w.format != Format::float32)
    return product_tiles(a, row_begin, row_end, w, panel_begin, panel_end, epilogue, scratch);
#endif
  product_lanes(a, row_begin, row_end, w, panel_begin, panel_end, epilogue, scratch);
}

}  // namespace layertap::LAYERTAP_ISA
