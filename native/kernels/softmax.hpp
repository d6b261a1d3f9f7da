// What softmax needs: powers of two, and one number of each of several rows.
#pragma once

#include "math.hpp"

namespace layertap::LAYERTAP_ISA {

// 2^x for x <= 0: at most 1.5 ulp off, exactly 1 for 0, and 0 for -inf. `exp2_rounded` is the cheaper one.
//
// A score times log2(e) needs no other reduction than its fraction, and the factor costs nothing where scores are scaled
// anyway: softmax is 2^(s - max) over its sum, with s in units of log2(e).
inline Floats exp2(Floats x) {
#if defined(__AVX512F__)
  // scalef takes 2^floor(x); reduce leaves x - floor(x), and 0 for -inf
  const Floats r = {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  Floats p = fma(all(0.000216129178F), r, all(0.00124678458F));
  p = fma(p, r, all(0.00967545155F));
  p = fma(p, r, all(0.0554852821F));
  p = fma(p, r, all(0.240229309F));
  p = fma(p, r, all(0.693147063F));
  p = fma(p, r, all(1.0F));
  return {_mm512_scalef_ps(p.v, x.v)};
#else
  // the low bits of `shifted` are the rounded x plus the exponent's 127, so -127 becomes the bits of 0
  x = max(all(-127.0F), x);
  const Floats magic = all(12582912.0F + 127.0F);
  const Floats shifted = x + magic;
  const Floats r = x - (shifted - magic);
  Floats p = fma(all(0.00015353362F), r, all(0.0013398875F));
  p = fma(p, r, all(0.00961843692F));
  p = fma(p, r, all(0.0555033237F));
  p = fma(p, r, all(0.240226477F));
  p = fma(p, r, all(0.693147182F));
  p = fma(p, r, all(1.0F));
  return p * Floats{_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23))};
#endif
}

// out[r] = the largest (the sum) of the `width` numbers of row r, for rows [0, rows), rows at most `width`.
inline void largest_of_rows(const float* in, std::int64_t rows, float* out) {
  for (std::int64_t r = 0; r < rows; ++r) out[r] = largest(load(in + r * width));
}
inline void sum_of_rows(const float* in, std::int64_t rows, float* out) {
  for (std::int64_t r = 0; r < rows; ++r) out[r] = sum(load(in + r * width));
}

}  // namespace layertap::LAYERTAP_ISA
