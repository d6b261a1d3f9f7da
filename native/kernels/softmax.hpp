// What softmax needs: powers of two, and one number of each of several rows.
#pragma once

#include "math.hpp"

namespace layertap::LAYERTAP_ISA {

// 2^x for x <= 0: at most 1.5 ulp off, exactly 1 for 0, and 0 for -inf. `exp2_rounded` is the cheaper one.
//
// A score times log2(e) needs no other reduction than its fraction, and the factor costs nothing where scores are scaled
// anyway: softmax is 2^(s - max) over its sum, with s in units of log2(e).
inline Floats exp2(Floats x) {
  x = max(all(-180.0F), x);  // where 2^x has become 0
#if defined(__AVX512F__)
  const Floats whole = {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
#else
  const Floats whole = {_mm256_floor_ps(x.v)};
#endif
  const Floats r = x - whole;
  Floats p = fma(all(0.000216129178F), r, all(0.00124678458F));
  p = fma(p, r, all(0.00967545155F));
  p = fma(p, r, all(0.0554852821F));
  p = fma(p, r, all(0.240229309F));
  p = fma(p, r, all(0.693147063F));
  p = fma(p, r, all(1.0F));
#if defined(__AVX512F__)
  return {_mm512_scalef_ps(p.v, whole.v)};
#else
  // The low bits of `shifted` are floor(x) + 64 and the exponent's 127. The last factor rounds subnormal results, once.
  const Floats shifted = whole + all(12582912.0F + 127.0F + 64.0F);
  const Floats power = {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23))};
  return p * power * all(0x1p-64F);
#endif
}

#if defined(__AVX512F__)

// Two numbers of each of two vectors' halves, quarters, ... become one: after four steps a vector holds one number of
// each of 16 rows, with a fifth of the instructions that a row at a time takes. Every row is folded in the same order.
template <class Fold>
Floats fold_halves(Floats a, Floats b, const Fold& fold) {
  return fold(Floats{_mm512_shuffle_f32x4(a.v, b.v, 0x44)}, Floats{_mm512_shuffle_f32x4(a.v, b.v, 0xee)});
}
template <class Fold>
Floats fold_quarters(Floats a, Floats b, const Fold& fold) {
  return fold(Floats{_mm512_shuffle_f32x4(a.v, b.v, 0x88)}, Floats{_mm512_shuffle_f32x4(a.v, b.v, 0xdd)});
}
template <class Fold>
Floats fold_pairs(Floats a, Floats b, const Fold& fold) {
  return fold(Floats{_mm512_shuffle_ps(a.v, b.v, 0x44)}, Floats{_mm512_shuffle_ps(a.v, b.v, 0xee)});
}
template <class Fold>
Floats fold_singles(Floats a, Floats b, const Fold& fold) {
  return fold(Floats{_mm512_shuffle_ps(a.v, b.v, 0x88)}, Floats{_mm512_shuffle_ps(a.v, b.v, 0xdd)});
}

// One number of each of `rows` rows, 12 or 16 (the last four of the result are no row's, then).
template <std::int64_t rows, class Fold>
Floats fold_rows(const float* in, const Fold& fold) {
  Floats quarter[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const Floats first_half = fold_halves(load(in + r * width), load(in + (r + 4) * width), fold);
    const Floats second_half = fold_halves(load(in + (r + 8) * width), load(in + (rows == 12 ? r + 8 : r + 12) * width), fold);
    quarter[r] = fold_quarters(first_half, second_half, fold);
  }
  return fold_singles(fold_pairs(quarter[0], quarter[1], fold), fold_pairs(quarter[2], quarter[3], fold), fold);
}

#else

// One number of each of 6 rows.
template <std::int64_t rows, class Fold>
Floats fold_rows(const float* in, const Fold& fold) {
  static_assert(rows == 6);
  Floats half[4];
  for (int r = 0; r < 4; ++r) {
    const Floats low = load(in + r * width);
    const Floats high = load(in + (r < 2 ? r + 4 : r) * width);
    half[r] = fold(Floats{_mm256_permute2f128_ps(low.v, high.v, 0x20)}, Floats{_mm256_permute2f128_ps(low.v, high.v, 0x31)});
  }
  const auto pairs = [&](Floats a, Floats b) {
    return fold(Floats{_mm256_shuffle_ps(a.v, b.v, 0x44)}, Floats{_mm256_shuffle_ps(a.v, b.v, 0xee)});
  };
  const Floats a = pairs(half[0], half[1]);
  const Floats b = pairs(half[2], half[3]);
  return fold(Floats{_mm256_shuffle_ps(a.v, b.v, 0x88)}, Floats{_mm256_shuffle_ps(a.v, b.v, 0xdd)});
}

#endif

// The largest, and the sum, of the `width` numbers of each of `rows` rows that follow each other.
template <std::int64_t rows>
Floats largest_of_rows(const float* in) {
  return fold_rows<rows>(in, [](Floats a, Floats b) { return max(a, b); });
}
template <std::int64_t rows>
Floats sum_of_rows(const float* in) {
  return fold_rows<rows>(in, [](Floats a, Floats b) { return a + b; });
}

}  // namespace layertap::LAYERTAP_ISA
