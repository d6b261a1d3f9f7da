#include "products.hpp"

#include "bfloat16.hpp"
#include "product_lanes.hpp"
#include "product_tiles.hpp"

namespace layertap::LAYERTAP_ISA {

namespace {

// Index of the 32-bit word that holds a group of column n.
std::int64_t word_at(const PackedMatrix& matrix, std::int64_t n, std::int64_t group, std::int64_t part) {
#if defined(LAYERTAP_TILES)
  if (matrix.format != Format::float32)
    return tile_word(n, group, part, parts_of(matrix.format), padded_groups(matrix.format, matrix.inner));
#endif
  return n / panel_columns * panel_words(matrix.format, matrix.inner) + part * part_words(matrix.format, matrix.inner) +
         group * panel_columns + n % panel_columns;
}

void pack_float32(const float* column, PackedMatrix& matrix, std::int64_t n) {
  float* out = static_cast<float*>(matrix.data) + word_at(matrix, n, 0, 0);
  for (std::int64_t k = 0; k < matrix.inner; ++k) out[k * panel_columns] = column[k];
}

// Each part is the rounded remainder of the parts before it.
void pack_bfloat16(const float* column, PackedMatrix& matrix, std::int64_t n) {
  auto* out = static_cast<std::uint32_t*>(matrix.data);
  const std::int64_t parts = parts_of(matrix.format);
  for (std::int64_t k = 0; k < matrix.inner; k += 2) {
    float low = column[k];
    float high = k + 1 < matrix.inner ? column[k + 1] : 0.0F;
    for (std::int64_t part = 0; part < parts; ++part) {
      const bfloat16 low_rounded = to_bfloat16(low);
      const bfloat16 high_rounded = to_bfloat16(high);
      const std::uint32_t word = static_cast<std::uint32_t>(high_rounded) << 16 | low_rounded;
      out[word_at(matrix, n, k / 2, part)] = word;
      low -= from_bfloat16(low_rounded);
      high -= from_bfloat16(high_rounded);
    }
  }
}

// Symmetric quantisation: the largest weight becomes 127. A column that is not finite gets the scale NaN, so that its sums
// are NaN.
void pack_int8(const float* column, PackedMatrix& matrix, std::int64_t n) {
  float top = 0;
  bool finite = true;
  for (std::int64_t k = 0; k < matrix.inner; ++k) {
    const float size = __builtin_fabsf(column[k]);
    finite = finite && size < __builtin_inff();
    top = size > top ? size : top;
  }
  constexpr float smallest = 1e-30F;  // below it 127 / top could overflow: the column counts as zero
  matrix.scales[n] = !finite ? __builtin_nanf("") : top < smallest ? 0.0F : top / 127.0F;
  if (!finite || top < smallest) return;  // the weights and their sum are zero already
  const float by = 127.0F / top;
  auto* out = static_cast<std::uint32_t*>(matrix.data);
  std::int32_t total = 0;
  for (std::int64_t k = 0; k < matrix.inner; k += 4) {
    std::uint32_t word = 0;
    const std::int64_t count = matrix.inner - k < 4 ? matrix.inner - k : 4;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int32_t rounded = _mm_cvtss_si32(_mm_set_ss(column[k + i] * by));  // to nearest even
      word |= (static_cast<std::uint32_t>(rounded) & 0xffU) << 8 * i;
      total += rounded;
    }
    out[word_at(matrix, n, k / 4, 0)] = word;
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
