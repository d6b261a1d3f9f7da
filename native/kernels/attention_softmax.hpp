// Softmax of a block of scores, [vector of keys][block_rows][width], up to the division by the sum, which waits for the
// product with the values.
#pragma once

#include "attention_pack.hpp"
#include "softmax.hpp"

namespace layertap::LAYERTAP_ISA {

constexpr float minus_infinity = -__builtin_inff();

// Number of rows that are folded together: those of a block, at most 16.
template <std::int64_t block_rows>
constexpr std::int64_t fold_count = block_rows < 16 ? block_rows : 16;

// Multiplies the scores of one row by `scale`, adds its bias in units of log2(e), and sets masked keys to -inf. `bias` points
// at distance 0, or is null; `window` 0 masks nothing. `place` is the place of the query.
template <std::int64_t block_rows>
void add_row_terms(float* scores, std::int64_t num_keys, float scale, const float* bias, std::int64_t window,
                   std::int64_t place) {
  const auto lane_of = [](std::int64_t lane) { return lane < 0 ? 0 : lane > width ? std::int64_t{width} : lane; };
  for (std::int64_t j = 0; j < num_keys; j += width) {
    const std::int64_t count = lane_of(num_keys - j);
    float* at = scores + j * block_rows;
    Floats score = load(at) * all(scale);
    if (bias != nullptr) score = fma(load(bias + j - place, count), all(log2_of_e), score);
    const std::int64_t seen_from = window > 0 ? lane_of(place - window - j) : 0;
    const std::int64_t seen_to = window > 0 ? lane_of(place + window + 1 - j) : count;
    store(at, all(minus_infinity));
    store(at, score, seen_to < count ? seen_to : count);
    store(at, all(minus_infinity), seen_from);
  }
}

// The largest score of each row. (Where a score is NaN, any result will do: the row's sum becomes NaN anyway.)
template <std::int64_t block_rows>
void find_maxima(const float* scores, std::int64_t rows, std::int64_t num_keys, float* totals, float* of_row) {
  for (std::int64_t r = 0; r < rows; ++r, scores += width) {
    Floats maximum = load(scores);
    for (std::int64_t j = width; j < num_keys; j += width) maximum = max(maximum, load(scores + j * block_rows));
    store(totals + r * width, maximum);
  }
  for (std::int64_t r = 0; r < rows; r += fold_count<block_rows>)
    store(of_row + r, largest_of_rows<fold_count<block_rows>>(totals + r * width));
}

// 1 / sum of each row.
template <std::int64_t block_rows>
void invert_sums(const float* totals, std::int64_t rows, float* of_row) {
  for (std::int64_t r = 0; r < rows; r += fold_count<block_rows>)
    store(of_row + r, all(1.0F) / sum_of_rows<fold_count<block_rows>>(totals + r * width));
}

// A sum of sixteen lanes as one vector, which `sum_of_rows` adds up in the order of `sum`.
inline Floats folded(const Floats (&total)[sum_vectors]) { return sum_vectors == 1 ? total[0] : total[0] + total[sum_vectors - 1]; }

// Scores -> 2^(score - maximum), and their sums in each lane.
template <std::int64_t block_rows>
void exponentiate(Float32Pack, float* scores, std::int64_t rows, std::int64_t num_keys, float, const float* of_row,
                  float* totals) {
  for (std::int64_t r = 0; r < rows; ++r, scores += width) {
    const Floats maximum = all(of_row[r]);
    Floats total[sum_vectors] = {};
    float* at = scores;
    std::int64_t j = 0;
    for (; j + sum_lanes <= num_keys; j += sum_lanes)
#pragma GCC unroll 2
      for (int v = 0; v < sum_vectors; ++v, at += block_rows * width) {
        const Floats p = exp2(load(at) - maximum);
        store(at, p);
        total[v] = total[v] + p;
      }
    // No index that only a run knows: the sums would lie in memory.
    if (j < num_keys) {
      store(at, exp2(load(at) - maximum));
      total[0] = total[0] + load(at, num_keys - j < width ? num_keys - j : width);
    }
    if (sum_vectors > 1 && j + width < num_keys) {
      at += block_rows * width;
      store(at, exp2(load(at) - maximum));
      total[sum_vectors - 1] = total[sum_vectors - 1] + load(at, num_keys - j - width);
    }
    store(totals + r * width, folded(total));
  }
}

#if defined(__AVX512BF16__)
// Sums the rounded powers, since those are what the product adds up. Zeros fill the last vector beyond the last key.
template <std::int64_t block_rows>
void exponentiate(Bfloat16Pack, float* scores, std::int64_t rows, std::int64_t num_keys, float scale, const float* of_row,
                  float* totals) {
  const Floats factor = all(scale);
  const auto ones = __builtin_bit_cast(__m512bh, _mm512_set1_epi32(0x3f803f80));
  for (std::int64_t r = 0; r < rows; ++r, scores += width) {
    const Floats maximum = all(of_row[r]);
    __m512 total = _mm512_setzero_ps();
    for (std::int64_t j = 0; j < num_keys; j += 2 * width) {
      const Floats low = exp2_rounded((load(scores + j * block_rows) - maximum) * factor);
      const Floats high = exp2_rounded((load(scores + (j + width) * block_rows) - maximum) * factor);
      __m512bh pairs = _mm512_cvtne2ps_pbh(high.v, low.v);
      if (num_keys - j < 2 * width) {
        const auto mask = static_cast<__mmask32>((1U << (num_keys - j)) - 1U);
        pairs = __builtin_bit_cast(__m512bh, _mm512_maskz_mov_epi16(mask, __builtin_bit_cast(__m512i, pairs)));
      }
      total = _mm512_dpbf16_ps(total, pairs, ones);
      // overwrites scores of this row that have been read already
      _mm512_storeu_si512(scores + j / 2 * block_rows, __builtin_bit_cast(__m512i, pairs));
    }
    store(totals + r * width, Floats{total});
  }
}
#endif

// The complete softmax in float32, for captures of attention maps: out [rows, num_keys].
template <std::int64_t block_rows>
void write_probabilities(const float* scores, std::int64_t rows, std::int64_t num_keys, float scale, const float* of_row,
                         float* out) {
  for (std::int64_t r = 0; r < rows; ++r, out += num_keys) {
    Floats total[sum_vectors] = {};
    for (std::int64_t j = 0; j < num_keys; j += width) {
      const std::int64_t count = num_keys - j < width ? num_keys - j : width;
      const Floats score = load(scores + j * block_rows + r * width);
      store(out + j, exp2((score - all(of_row[r])) * all(scale)), count);
      Floats& lanes = total[sum_vector(j)];
      lanes = lanes + load(out + j, count);
    }
    const Floats factor = all(1.0F / sum(total));
    for (std::int64_t j = 0; j < num_keys; j += width) {
      const std::int64_t count = num_keys - j < width ? num_keys - j : width;
      store(out + j, load(out + j, count) * factor, count);
    }
  }
}

}  // namespace layertap::LAYERTAP_ISA
