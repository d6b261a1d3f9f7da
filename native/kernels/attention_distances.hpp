// The terms of disentangled attention (He et al. 2021) in a block of scores, [vector of keys][block_rows][width].
#pragma once

#include "attention_softmax.hpp"

namespace layertap::LAYERTAP_ISA {

// Gathers row[columns[0]], row[columns[1]], ... for ascending columns. Neighbouring distances usually have neighbouring
// columns or share one; a load and a permutation then suffice, which is cheaper than a gather.
inline Floats pick(const float* row, const std::int32_t* columns) {
  const std::int32_t first_column = columns[0];
  const bool near = columns[width - 1] - first_column < width;
#if defined(__AVX512F__)
  const __m512i at = _mm512_loadu_si512(columns);
  if (near) return {_mm512_permutexvar_ps(_mm512_sub_epi32(at, _mm512_set1_epi32(first_column)), _mm512_loadu_ps(row + first_column))};
  return {_mm512_i32gather_ps(at, row, 4)};
#else
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns));
  if (near)
    return {_mm256_permutevar8x32_ps(_mm256_loadu_ps(row + first_column), _mm256_sub_epi32(at, _mm256_set1_epi32(first_column)))};
  return {_mm256_i32gather_ps(row, at, 4)};
#endif
}

inline std::int64_t place_of(const AttentionHead& h, std::int64_t query) {
  return (h.query_rows == nullptr ? query : h.query_rows[query]) + h.query_offset;
}

// The key terms between `width` keys from `key` on and up to `width` queries from `query` on. The terms of query + r go to
// out[(width - 1 - r) * strip_columns], one for each key. The products of a key are ordered by distance, so the terms of
// neighbouring queries lie next to each other in reverse order; they are loaded by key and then transposed.
inline void key_terms(const AttentionHead& h, std::int64_t query, std::int64_t rows, std::int64_t key, float* out) {
  alignas(64) float picked[width * width];
  const char* picked_rows[width];
  const std::int64_t place = place_of(h, query);
  const bool neighbours = place_of(h, query + rows - 1) - place == rows - 1;
  for (std::int64_t l = 0; l < width; ++l) {
    const std::int64_t own = key + l < h.num_keys ? key + l : h.num_keys - 1;
    const float* products = h.key_distances + own * h.distance_stride;
    float* to = picked + l * width;
    picked_rows[l] = static_cast<const char*>(static_cast<const void*>(to));
    if (neighbours) {
      store(to, pick(products, h.distance_columns + own - place - (width - 1)));
      continue;
    }
    for (std::int64_t r = 0; r < rows; ++r)
      to[width - 1 - r] = products[h.distance_columns[own - place_of(h, query + r)]];
  }
  for (std::int64_t r = (width - rows) / quarter * quarter; r < width; r += quarter)
    transpose_quarter(picked_rows, r * group_bytes, static_cast<std::int32_t*>(static_cast<void*>(out + r * strip_columns)));
}

// Scores of queries first_query, first_query + 1, ..., times `scale`, plus `factor` times their terms.
template <std::int64_t block_rows>
void add_distance_terms(float* scores, const AttentionHead& h, std::int64_t first_query, std::int64_t rows, float scale,
                        float factor) {
  alignas(64) float of_keys[width * strip_columns];
  for (std::int64_t begin = 0; begin < rows; begin += width) {
    const std::int64_t some = rows - begin < width ? rows - begin : width;
    for (std::int64_t j = 0; j < h.num_keys; j += width) {
      if (h.key_distances != nullptr) key_terms(h, first_query + begin, some, j, of_keys);
      for (std::int64_t r = 0; r < some; ++r) {
        const std::int64_t query = first_query + begin + r;
        const float* of_key = of_keys + (width - 1 - r) * strip_columns;
        Floats term = h.key_distances == nullptr ? zero() : load(of_key);
        if (h.query_distances != nullptr)
          term = pick(h.query_distances + query * h.distance_stride, h.distance_columns + j - place_of(h, query)) + term;
        float* at = scores + j * block_rows + (begin + r) * width;
        const Floats score = fma(term, all(factor), load(at) * all(scale));
        if (h.num_keys - j >= width) {
          store(at, score);
        } else {  // lanes beyond the last key must not change a maximum
          store(at, all(minus_infinity));
          store(at, score, h.num_keys - j);
        }
      }
    }
  }
}

}  // namespace layertap::LAYERTAP_ISA
