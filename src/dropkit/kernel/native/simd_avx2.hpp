// AVX2, with F16C and BMI.
#pragma once
#include <immintrin.h>

#include "dtypes.hpp"

namespace dropkit {
namespace {

struct Avx2 {
  static constexpr int chains = 1;  // of Philox, side by side
  static constexpr const char* name = "avx2";

  // --- Philox: 8 words, each in the low half of a 64-bit lane, where it can be multiplied without
  // repacking; the upper halves hold waste. `even` and `odd` are interleaved only at the end.
  using Word = __m256i;
  struct Words {
    static constexpr int size = 8;
    __m256i even, odd;

    static Words all(uint32_t w) { return {Avx2::all(w), Avx2::all(w)}; }
    static Words load(const uint32_t* p) {
      return {_mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
              _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 4)))};
    }
    void store(uint32_t* p) const {
      const __m256i low = _mm256_castps_si256(_mm256_shuffle_ps(
          _mm256_castsi256_ps(even), _mm256_castsi256_ps(odd), _MM_SHUFFLE(2, 0, 2, 0)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                          _mm256_permute4x64_epi64(low, _MM_SHUFFLE(3, 1, 2, 0)));
    }
  };

  static Word all(uint32_t w) { return _mm256_set1_epi32(static_cast<int>(w)); }

  static void multiply(Words x, Word m, Words& high, Words& low) {
    low = {_mm256_mul_epu32(x.even, m), _mm256_mul_epu32(x.odd, m)};
    high = {_mm256_srli_epi64(low.even, 32), _mm256_srli_epi64(low.odd, 32)};
  }
  static Words exclusive_or(Words a, Words b, Word c) {
    return {_mm256_xor_si256(a.even, _mm256_xor_si256(b.even, c)),
            _mm256_xor_si256(a.odd, _mm256_xor_si256(b.odd, c))};
  }

  // In the order that comes out of `transposed` as 128 bytes in a row.
  static Words counters(uint32_t first) {
    const __m256i base = all(first);
    return {_mm256_add_epi32(base, _mm256_set_epi64x(5, 1, 4, 0)),
            _mm256_add_epi32(base, _mm256_set_epi64x(7, 3, 6, 2))};
  }

  // --- Bytes.
  struct Bytes {
    static constexpr int size = 32;
    static constexpr int step = 1;  // bits of `equal` per byte
    __m256i v;

    static Bytes all(uint8_t b) { return {_mm256_set1_epi8(static_cast<char>(b))}; }
    void store(uint8_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
    // 0xff where a byte is at least `least`, else 0.
    Bytes at_least(Bytes least) const {
      return {_mm256_cmpeq_epi8(_mm256_max_epu8(v, least.v), v)};
    }
    uint64_t equal(Bytes other) const {
      return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, other.v)));
    }
  };

  static void transposed(const Words (&w)[4], Bytes* out) {
    __m256i r[4];
    for (int j = 0; j < 4; ++j)
      r[j] = _mm256_blend_epi32(w[j].even, _mm256_slli_epi64(w[j].odd, 32), 0xAA);
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpackhi_epi32(r[0], r[1]);
    const __m256i c = _mm256_unpacklo_epi32(r[2], r[3]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    out[0] = {_mm256_unpacklo_epi64(a, c)};
    out[1] = {_mm256_unpackhi_epi64(a, c)};
    out[2] = {_mm256_unpacklo_epi64(b, d)};
    out[3] = {_mm256_unpackhi_epi64(b, d)};
  }

  // --- Numbers. A mask is one byte per element, 0 or 0xff.
  struct Single {
    static constexpr int size = 8;
    __m256 v;

    static Single all(double a) { return {_mm256_set1_ps(static_cast<float>(a))}; }
    friend Single operator*(Single a, Single b) { return {_mm256_mul_ps(a.v, b.v)}; }
    friend Single operator+(Single a, Single b) { return {_mm256_add_ps(a.v, b.v)}; }
    Single rectified() const { return {_mm256_max_ps(_mm256_setzero_ps(), v)}; }  // nan stays
    Single where(const uint8_t* mask, Single otherwise) const {
      const __m128i m = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask));
      return where_sign(_mm256_cvtepi8_epi32(m), otherwise);
    }
    Single where_passed(Single y, Single otherwise) const {
      const __m256 passed = _mm256_cmp_ps(y.v, _mm256_setzero_ps(), _CMP_NLE_UQ);
      return {_mm256_blendv_ps(otherwise.v, v, passed)};
    }
    Single where_sign(__m256i mask, Single otherwise) const {
      return {_mm256_blendv_ps(otherwise.v, v, _mm256_castsi256_ps(mask))};
    }
  };

  // 16 bfloat16: a 32-bit lane holds two, and each is made a float32 where it lies.
  struct Pair {
    static constexpr int size = 16;
    Single even, odd;

    static Pair all(double a) { return {Single::all(a), Single::all(a)}; }
    friend Pair operator*(Pair a, Pair b) { return {a.even * b.even, a.odd * b.odd}; }
    friend Pair operator+(Pair a, Pair b) { return {a.even + b.even, a.odd + b.odd}; }
    Pair rectified() const { return {even.rectified(), odd.rectified()}; }
    Pair where(const uint8_t* mask, Pair otherwise) const {
      // Two bytes to a lane: the sign is that of the odd one, bit 7 that of the even one.
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(mask));
      const __m256i m = _mm256_cvtepi16_epi32(bytes);
      return {even.where_sign(_mm256_slli_epi32(m, 24), otherwise.even),
              odd.where_sign(m, otherwise.odd)};
    }
    Pair where_passed(Pair y, Pair otherwise) const {
      return {even.where_passed(y.even, otherwise.even),
              odd.where_passed(y.odd, otherwise.odd)};
    }
  };

  struct Double {
    static constexpr int size = 4;
    __m256d v;

    static Double all(double a) { return {_mm256_set1_pd(a)}; }
    friend Double operator*(Double a, Double b) { return {_mm256_mul_pd(a.v, b.v)}; }
    friend Double operator+(Double a, Double b) { return {_mm256_add_pd(a.v, b.v)}; }
    Double rectified() const { return {_mm256_max_pd(_mm256_setzero_pd(), v)}; }
    Double where(const uint8_t* mask, Double otherwise) const {
      int four;
      std::memcpy(&four, mask, sizeof four);
      const __m256i m = _mm256_cvtepi8_epi64(_mm_cvtsi32_si128(four));
      return {_mm256_blendv_pd(otherwise.v, v, _mm256_castsi256_pd(m))};
    }
    Double where_passed(Double y, Double otherwise) const {
      const __m256d passed = _mm256_cmp_pd(y.v, _mm256_setzero_pd(), _CMP_NLE_UQ);
      return {_mm256_blendv_pd(otherwise.v, v, passed)};
    }
  };

  static Single load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static void store(float* p, Single a) { _mm256_storeu_ps(p, a.v); }

  static Double load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static void store(double* p, Double a) { _mm256_storeu_pd(p, a.v); }

  static Single load(const float16* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static void store(float16* p, Single a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static Pair load(const bfloat16* p) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(both, 16))},
            {_mm256_castsi256_ps(_mm256_and_si256(both, all(0xffff0000u)))}};
  }
  static void store(bfloat16* p, Pair a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), joined(a));
  }

  // Zero where the mask is.
  template <class D, class V>
  static void store_kept(D* p, V a, const uint8_t* mask) {
    store(p, a.where(mask, V::all(0)));
  }
  static void store_kept(bfloat16* p, Pair a, const uint8_t* mask) {
    const __m128i m = _mm_loadu_si128(reinterpret_cast<const __m128i*>(mask));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm256_and_si256(_mm256_cvtepi8_epi16(m), joined(a)));
  }

 private:
  static __m256i joined(Pair a) {
    const __m256i even = _mm256_srli_epi32(rounded(a.even), 16);
    return _mm256_blend_epi16(even, rounded(a.odd), 0xAA);
  }
  // To nearest, ties to even, in the upper half. (dtypes.hpp says why nan needs no care.)
  static __m256i rounded(Single a) {
    const __m256i bits = _mm256_castps_si256(a.v);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), all(1));
    return _mm256_add_epi32(_mm256_add_epi32(bits, all(0x7fff)), last);
  }
};

}  // namespace
}  // namespace dropkit
