// Functions of `Floats`: exponentials and the activations. NaN in gives NaN out. Those without `_rounded` give the same bits
// on every instruction set, so they use no approximate instructions, whose results differ among processors.
//
// For outputs that are rounded to bfloat16 (half an ulp: 2^-9) there are cheaper forms, named `..._rounded`.
//
// The coefficients are minimax fits in float64, made by iterated reweighting over dense grids. Cycles an element on an
// AMD Zen 5, of vectors in L1, 16 lanes (8 lanes): exp 0.36 (1.03), exp_rounded 0.16 (0.42), gelu 0.96 (2.0), gelu_rounded
// 0.25, gelu_tanh 0.71 (1.8), gelu_tanh_rounded 0.37, silu 0.57 (1.5), silu_rounded 0.32, tanh 0.65 (1.6).
#pragma once

#include "simd.hpp"

namespace layertap::LAYERTAP_ISA {

// --- what the instruction sets do differently

#if defined(__AVX512F__)

inline Floats magnitude(Floats x) { return {_mm512_abs_ps(x.v)}; }
// To the nearest integer, ties to even.
inline Floats nearest(Floats x) { return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// x * 2^n for whole n, also where that over- or underflows.
inline Floats scale(Floats x, Floats n) { return {_mm512_scalef_ps(x.v, n.v)}; }
// The sign of `sign` on the magnitude of x.
inline Floats with_sign(Floats x, Floats sign) {
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(x.v), _mm512_castps_si512(sign.v),
                                                        _mm512_set1_epi32(static_cast<int>(0x80000000U)), 0xd8))};
}
// relu(x), but NaN for -inf, since x Phi(x) is -inf times 0 there. One instruction, which selects by the class of a number.
inline Floats positive_part(Floats x) {
  // one hexadecimal digit for each class, from the lowest up: quiet NaN (1: unchanged), signalling NaN (2: quieted), 0, 1,
  // -inf (3: NaN), inf, negative numbers (8: 0), positive numbers
  return {_mm512_fixupimm_ps(x.v, x.v, _mm512_set1_epi32(0x18131121), 0)};
}
// 1 / x within 2^-14.
inline Floats rough_inverse(Floats x) { return {_mm512_rcp14_ps(x.v)}; }

#else

inline Floats magnitude(Floats x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0F), x.v)}; }
inline Floats nearest(Floats x) { return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// |n| at most 252: in two steps, as 2^n alone may not be a float32.
inline Floats scale(Floats x, Floats n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i one = _mm256_set1_epi32(127);
  const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, one), 23);
  const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), one), 23);
  return {_mm256_mul_ps(_mm256_mul_ps(x.v, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b))};
}
inline Floats with_sign(Floats x, Floats sign) {
  const __m256 bit = _mm256_set1_ps(-0.0F);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, x.v), _mm256_and_ps(bit, sign.v))};
}
// relu(x), but NaN for -inf, since x Phi(x) is -inf times 0 there.
inline Floats positive_part(Floats x) { return x - min(x, zero()); }

#endif

// --- exponentials

// e^r for |r| <= ln 2 / 2, to 3e-9 before rounding.
inline Floats exp_reduced(Floats r) {
  Floats p = all(0.00138145988F);
  p = fma(p, r, all(0.00836871658F));
  p = fma(p, r, all(0.041668389F));
  p = fma(p, r, all(0.166665211F));
  p = fma(p, r, all(0.49999994F));
  p = fma(p, r, all(1.0F));
  return fma(p, r, all(1.0F));
}

// ln 2 in two parts; n times the first is exact for |n| < 2^9.
constexpr float log2_of_e = 1.44269504F;
constexpr float ln2_high = 0.693145752F;
constexpr float ln2_low = 1.42860677e-06F;

// e^x: error of at most 1 ulp over the whole range, subnormal results included; 0 from -104 down, inf from 88.73 up.
inline Floats exp(Floats x) {
  // beyond these bounds the result is 0 or inf, and at them the arithmetic below is still finite
  x = min(all(89.0F), max(all(-104.0F), x));
  const Floats n = nearest(x * all(log2_of_e));
  const Floats r = fma(n, all(-ln2_low), fma(n, all(-ln2_high), x));
  return scale(exp_reduced(r), n);
}

// 2^x for x <= 0, with a relative error of 1e-4; 0 for -inf, and roughly 0 where the result would be subnormal.
inline Floats exp2_rounded(Floats x) {
#if defined(__AVX512F__)
  // scalef takes 2^floor(x); reduce leaves x - floor(x), and 0 for -inf
  const Floats r = {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  Floats p = fma(all(0.0780245215F), r, all(0.226067156F));
  p = fma(p, r, all(0.695833564F));
  p = fma(p, r, all(0.999925196F));
  return {_mm512_scalef_ps(p.v, x.v)};
#else
  // the low bits of `shifted` are the rounded x plus the exponent's 127, so -127 becomes the bits of 0
  x = max(all(-127.0F), x);
  const Floats magic = all(12582912.0F + 127.0F);
  const Floats shifted = x + magic;
  const Floats r = x - (shifted - magic);
  Floats p = fma(all(0.0551716685F), r, all(0.242611125F));
  p = fma(p, r, all(0.693260968F));
  p = fma(p, r, all(0.999928057F));
  return p * Floats{_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23))};
#endif
}

// e^x for x <= 0, with a relative error of 1e-4. A product before it can absorb the factor: e^(a x) = exp2_rounded((a log2 e) x).
inline Floats exp_rounded(Floats x) { return exp2_rounded(x * all(log2_of_e)); }

// --- activations

inline Floats relu(Floats x) { return max(zero(), x); }

// tanh(|x|) = -e / (2 + e) with e = e^(-2 |x|) - 1, which keeps its digits near 0: at most 2.5 ulp off.
inline Floats tanh(Floats x) {
  const Floats y = max(all(-20.0F), magnitude(x) * all(-2.0F));  // tanh is 1 from 10 on
  const Floats n = nearest(y * all(log2_of_e));
  const Floats r = fma(n, all(-ln2_low), fma(n, all(-ln2_high), y));
  // e^r - 1, its first term outside of the sum of the smaller ones
  Floats p = all(0.00138825213F);
  p = fma(p, r, all(0.00836652052F));
  p = fma(p, r, all(0.0416672006F));
  p = fma(p, r, all(0.166665435F));
  p = fma(p, r, all(0.49999997F));
  const Floats m = fma(p * r, r, r);
  const Floats power = scale(all(1.0F), n);
  const Floats e = fma(m, power, power - all(1.0F));
  return with_sign(e / (e + all(2.0F)), x);
}

// x / (1 + e^-x). This and the functions below give NaN for -inf, which is -inf times 0, as torch does.
inline Floats silu(Floats x) { return x / (all(1.0F) + exp(zero() - x)); }

// x / 2 (1 + tanh(y)) = x / (1 + e^(-2 y)), y = sqrt(2 / pi) (x + 0.044715 x^3).
inline Floats gelu_tanh(Floats x) {
  const Floats minus_2y = x * fma(x * x, all(-0.0713548163F), all(-1.59576912F));
  return x / (all(1.0F) + exp(minus_2y));
}

// x Phi(x), Phi the normal distribution function. With t = |x|, Phi(-t) = e^(-t^2 / 2) R(t), and R (half of the scaled
// complementary error function at t / sqrt 2) is smooth: all its coefficients are positive, so nothing cancels and small
// results keep their digits, where 1 + erf has lost them: at most 6 ulp off from -12.9 up, 2^-22.7 |x| everywhere.
inline Floats gelu(Floats x) {
  const Floats t = min(all(15.0F), magnitude(x));  // there e^(-t^2 / 2) has become 0
  const Floats square = t * t;
  const Floats lost = fma(t, t, zero() - square);  // what rounding took from t^2: as much as 1e-5 of the result
  const Floats n = nearest(square * all(-0.5F * log2_of_e));
  // u = t^2 + 2 n ln 2, so that e^(-t^2 / 2) = 2^n e^(-u / 2)
  const Floats u = fma(n, all(2 * ln2_low), fma(n, all(2 * ln2_high), square)) + lost;
  Floats p = all(2.15853106e-05F);
  p = fma(p, u, all(-0.000261522393F));
  p = fma(p, u, all(0.00260427431F));
  p = fma(p, u, all(-0.0208331514F));
  p = fma(p, u, all(0.124999985F));
  p = fma(p, u, all(-0.5F));
  p = fma(p, u, all(1.0F));
  Floats above = fma(all(0.00415321859F), t, all(0.0408810489F));
  above = fma(above, t, all(0.183968902F));
  above = fma(above, t, all(0.439283103F));
  above = fma(above, t, all(0.5F));
  Floats below = fma(all(0.0104104634F), t, all(0.102479711F));
  below = fma(below, t, all(0.471408069F));
  below = fma(below, t, all(1.20554721F));
  below = fma(below, t, all(1.67645121F));
  below = fma(below, t, all(1.0F));
  return positive_part(x) - scale(t * above * p / below, n);
}

#if defined(__AVX512F__)

// Phi(-t) on [0, 4.5] as a cubic in each of 16 parts, fitted to its relative error.
alignas(64) constexpr float tail_0[16] = {
    0.500000358F, 0.500442922F, 0.504972279F, 0.520160735F, 0.547123492F,  0.573776186F, 0.578219831F,  0.542320311F,
    0.464053214F, 0.358728051F, 0.249630079F, 0.156325772F, 0.0882062539F, 0.044926405F, 0.0206968412F, 0.00864071399F,
};
alignas(64) constexpr float tail_1[16] = {
    -0.398979634F, -0.403127313F, -0.42649135F,  -0.479951024F, -0.551860332F,  -0.609263897F,  -0.617981911F,  -0.564056396F,
    -0.460243225F, -0.33568269F,  -0.219377637F, -0.128863111F, -0.0682468414F, -0.0326797441F, -0.0141837522F, -0.0055917576F,
};
alignas(64) constexpr float tail_2[16] = {
    0.000558024796F, 0.013814874F, 0.0543631166F, 0.117367841F,  0.181459263F,  0.222733393F,   0.228389427F,   0.201370314F,
    0.155442134F,    0.106314108F, 0.0649675801F, 0.0356882215F, 0.0177032929F, 0.00795802753F, 0.00325067504F, 0.00120924378F,
};
alignas(64) constexpr float tail_3[16] = {
    0.0641932338F,  0.0496324673F,  0.0259430707F,   0.00107866374F, -0.0180110615F,  -0.0279179905F,   -0.0291330311F,   -0.0246172808F,
    -0.0178399105F, -0.0113777313F, -0.00647613173F, -0.0033179957F, -0.00153877668F, -0.000648508721F, -0.000249077304F, -8.73700556e-05F,
};

// gelu to 2^-10 of the result; below -4.5 a constant -1.5e-5. Eleven instructions.
inline Floats gelu_rounded(Floats x) {
  // |x|, at most just below 4.5 (for NaN too: the positive part hands that on)
  const __m512 t = _mm512_range_ps(x.v, _mm512_set1_ps(4.4999995F), 0b1010);
  // floor(t * 16 / 4.5) in the low bits, where a permutation looks for its index
  const __m512i part = _mm512_castps_si512(
      _mm512_fmadd_round_ps(t, _mm512_set1_ps(16 / 4.5F), _mm512_set1_ps(8388608.0F), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
  __m512 p = _mm512_permutexvar_ps(part, _mm512_load_ps(tail_3));
  p = _mm512_fmadd_ps(p, t, _mm512_permutexvar_ps(part, _mm512_load_ps(tail_2)));
  p = _mm512_fmadd_ps(p, t, _mm512_permutexvar_ps(part, _mm512_load_ps(tail_1)));
  p = _mm512_fmadd_ps(p, t, _mm512_permutexvar_ps(part, _mm512_load_ps(tail_0)));
  return {_mm512_fnmadd_ps(p, t, positive_part(x).v)};
}

inline Floats silu_rounded(Floats x) {
  return x * rough_inverse(all(1.0F) + exp2_rounded(x * all(-log2_of_e)));
}

inline Floats gelu_tanh_rounded(Floats x) {
  const Floats minus_2y = x * fma(x * x, all(-0.0713548163F * log2_of_e), all(-1.59576912F * log2_of_e));
  return x * rough_inverse(all(1.0F) + exp2_rounded(minus_2y));
}

#else

// AVX2 has no bfloat16 products; only tests call these.
inline Floats gelu_rounded(Floats x) { return gelu(x); }
inline Floats silu_rounded(Floats x) { return silu(x); }
inline Floats gelu_tanh_rounded(Floats x) { return gelu_tanh(x); }

#endif

// The activation is a template parameter, so that a loop contains only one function; `rounded`: for bfloat16 results.
template <Activation activation, bool rounded>
inline Floats activate(Floats x) {
  if constexpr (activation == Activation::gelu) return rounded ? gelu_rounded(x) : gelu(x);
  if constexpr (activation == Activation::gelu_tanh) return rounded ? gelu_tanh_rounded(x) : gelu_tanh(x);
  if constexpr (activation == Activation::relu) return relu(x);
  if constexpr (activation == Activation::silu) return rounded ? silu_rounded(x) : silu(x);
  if constexpr (activation == Activation::tanh) return tanh(x);
  return x;
}

}  // namespace layertap::LAYERTAP_ISA
