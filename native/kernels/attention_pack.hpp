// Rearranges queries, keys and values of one head for its products. A group is 32 bits along the dimension that is summed:
// one float32 or two bfloat16 (neighbours along D in queries and keys, neighbouring keys in values and probabilities).
//
// The right factor of a product lies in strips of two vectors of columns, [strip][group][strip_columns] words; the left
// one in blocks of as many rows as the products take, [vector of groups][block_rows][width] words. With 16 groups by 16
// rows or columns, the same words are AMX tiles.
#pragma once

#include <cstring>

#include "lanes.hpp"

namespace layertap::LAYERTAP_ISA {

constexpr std::int64_t strip_columns = 2 * width;

constexpr std::int64_t rounded_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

constexpr std::int64_t group_bytes = 4;
constexpr std::int64_t quarter = 4;  // groups that move together: 16 bytes

// --- keys: transposed

#if defined(__AVX512F__)

using Words = __m512i;

inline void store_words(std::int32_t* p, Words x) { _mm512_storeu_si512(p, x); }
inline __m128i load_quarter(const char* p) {
  __m128i x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
// 16 bytes of every fourth row.
inline Words gather_quarters(const char* const* rows, std::int64_t offset) {
  Words x = _mm512_castsi128_si512(load_quarter(rows[0] + offset));
  x = _mm512_inserti32x4(x, load_quarter(rows[4] + offset), 1);
  x = _mm512_inserti32x4(x, load_quarter(rows[8] + offset), 2);
  return _mm512_inserti32x4(x, load_quarter(rows[12] + offset), 3);
}
inline Words low_words(Words a, Words b) { return _mm512_unpacklo_epi32(a, b); }
inline Words high_words(Words a, Words b) { return _mm512_unpackhi_epi32(a, b); }
inline Words low_pairs(Words a, Words b) { return _mm512_unpacklo_epi64(a, b); }
inline Words high_pairs(Words a, Words b) { return _mm512_unpackhi_epi64(a, b); }

#else

using Words = __m256i;

inline void store_words(std::int32_t* p, Words x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
inline __m128i load_quarter(const char* p) {
  __m128i x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline Words gather_quarters(const char* const* rows, std::int64_t offset) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_quarter(rows[0] + offset)), load_quarter(rows[4] + offset), 1);
}
inline Words low_words(Words a, Words b) { return _mm256_unpacklo_epi32(a, b); }
inline Words high_words(Words a, Words b) { return _mm256_unpackhi_epi32(a, b); }
inline Words low_pairs(Words a, Words b) { return _mm256_unpacklo_epi64(a, b); }
inline Words high_pairs(Words a, Words b) { return _mm256_unpackhi_epi64(a, b); }

#endif

// Four groups of `width` rows, transposed: out[g * strip_columns + row].
inline void transpose_quarter(const char* const* rows, std::int64_t offset, std::int32_t* out) {
  const Words a = gather_quarters(rows, offset);
  const Words b = gather_quarters(rows + 1, offset);
  const Words c = gather_quarters(rows + 2, offset);
  const Words d = gather_quarters(rows + 3, offset);
  const Words ab_low = low_words(a, b);
  const Words ab_high = high_words(a, b);
  const Words cd_low = low_words(c, d);
  const Words cd_high = high_words(c, d);
  store_words(out, low_pairs(ab_low, cd_low));
  store_words(out + strip_columns, high_pairs(ab_low, cd_low));
  store_words(out + 2 * strip_columns, low_pairs(ab_high, cd_high));
  store_words(out + 3 * strip_columns, high_pairs(ab_high, cd_high));
}

// `row_bytes` of each of `rows` rows -> strips [rows / strip_columns][groups][strip_columns], groups rounded up to whole
// quarters with zeros. Rows beyond the last, up to a whole vector, repeat it: their scores then change no maximum.
inline void pack_keys(const char* in, std::int64_t stride_bytes, std::int64_t rows, std::int64_t row_bytes,
                      std::int32_t* out) {
  constexpr std::int64_t quarter_bytes = quarter * group_bytes;
  const std::int64_t whole = row_bytes / quarter_bytes * quarter_bytes;
  const std::int64_t strip_words = rounded_up(row_bytes, quarter_bytes) / group_bytes * strip_columns;
  for (std::int64_t j = 0; j < rows; j += width) {
    const char* row[width];
    for (std::int64_t r = 0; r < width; ++r) row[r] = in + (j + r < rows ? j + r : rows - 1) * stride_bytes;
    std::int32_t* to = out + j / strip_columns * strip_words + j % strip_columns;
    for (std::int64_t offset = 0; offset < whole; offset += quarter_bytes)
      transpose_quarter(row, offset, to + offset / group_bytes * strip_columns);
    if (whole == row_bytes) continue;
    char rest[width * quarter_bytes] = {};
    for (std::int64_t r = 0; r < width; ++r) {
      std::memcpy(rest + r * quarter_bytes, row[r] + whole, static_cast<std::size_t>(row_bytes - whole));
      row[r] = rest + r * quarter_bytes;
    }
    transpose_quarter(row, 0, to + whole / group_bytes * strip_columns);
  }
}

// --- parts that depend on the format: values (right factor of the second product), queries (left factor of the first)

struct Float32Pack {
  using Lanes = Float32Lanes;
  using Element = float;
  static constexpr std::int64_t group = 1;  // elements
  static constexpr bool scaled_queries = true;

  // One group a key.
  static void values(const float* in, std::int64_t stride, std::int64_t keys, std::int64_t groups, std::int64_t head_size,
                     std::int32_t* out) {
    for (std::int64_t column = 0; column < head_size; column += strip_columns, out += groups * strip_columns)
      for (std::int64_t v = 0; v < strip_columns && column + v < head_size; v += width) {
        const std::int64_t count = head_size - column - v < width ? head_size - column - v : width;
        for (std::int64_t j = 0; j < keys; ++j)
          Lanes::store_sum(out + j * strip_columns + v, load(in + j * stride + column + v, count).v);
      }
  }

  // Queries are multiplied by the factor that turns scores into exponents of two.
  template <std::int64_t block_rows>
  static void queries(const float* in, std::int64_t stride, std::int64_t rows, std::int64_t head_size, float scale,
                      std::int32_t* out) {
    for (std::int64_t d = 0; d < head_size; d += width, out += block_rows * width) {
      const std::int64_t count = head_size - d < width ? head_size - d : width;
      for (std::int64_t r = 0; r < rows; ++r)
        Lanes::store_sum(out + r * width, (load(in + r * stride + d, count) * all(scale)).v);
    }
  }
};

#if defined(__AVX512BF16__)

struct Bfloat16Pack {
  using Lanes = Bfloat16Lanes;
  using Element = bfloat16;
  static constexpr std::int64_t group = 2;
  static constexpr bool scaled_queries = false;  // scaling would round them once more

  // The first `count` (0 to 32), the others zero.
  static Words load_elements(const bfloat16* p, std::int64_t count) {
    const auto mask = static_cast<__mmask32>((std::uint64_t{1} << count) - 1U);
    return _mm512_maskz_loadu_epi16(mask, p);
  }

  // Two keys a group, zeros beyond the last key.
  static void values(const bfloat16* in, std::int64_t stride, std::int64_t keys, std::int64_t groups,
                     std::int64_t head_size, std::int32_t* out) {
    const Words low_half = interleaved(0);
    const Words high_half = interleaved(16);
    for (std::int64_t column = 0; column < head_size; column += strip_columns) {
      const std::int64_t count = head_size - column < strip_columns ? head_size - column : strip_columns;
      for (std::int64_t j = 0; j < 2 * groups; j += 2, out += strip_columns) {
        const Words even = j < keys ? load_elements(in + j * stride + column, count) : _mm512_setzero_si512();
        const Words odd = j + 1 < keys ? load_elements(in + (j + 1) * stride + column, count) : _mm512_setzero_si512();
        store_words(out, _mm512_permutex2var_epi16(even, low_half, odd));
        store_words(out + width, _mm512_permutex2var_epi16(even, high_half, odd));
      }
    }
  }

  template <std::int64_t block_rows>
  static void queries(const bfloat16* in, std::int64_t stride, std::int64_t rows, std::int64_t head_size, float,
                      std::int32_t* out) {
    for (std::int64_t d = 0; d < head_size; d += 2 * width, out += block_rows * width) {
      const std::int64_t count = head_size - d < 2 * width ? head_size - d : 2 * width;
      for (std::int64_t r = 0; r < rows; ++r) store_words(out + r * width, load_elements(in + r * stride + d, count));
    }
  }

 private:
  // For a permutation of two vectors of 32 elements: begin, 32 + begin, begin + 1, 33 + begin, ...
  static Words interleaved(int begin) {
    const Words index = _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                         _mm512_set1_epi32(begin));
    return _mm512_or_si512(index, _mm512_slli_epi32(_mm512_add_epi32(index, _mm512_set1_epi32(32)), 16));
  }
};

#endif

}  // namespace layertap::LAYERTAP_ISA
