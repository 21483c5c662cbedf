// AVX-512 (F, BW, DQ, VL).
#pragma once
#include <immintrin.h>

#include "dtypes.hpp"

namespace dropkit {
namespace {

struct Avx512 {
  static constexpr int chains = 2;  // of Philox, side by side
  static constexpr const char* name = "avx512";

  // --- Philox: 16 words, each in the low half of a 64-bit lane, where it can be multiplied without
  // repacking; the upper halves hold waste. `even` and `odd` are interleaved only at the end.
  using Word = __m512i;
  struct Words {
    static constexpr int size = 16;
    __m512i even, odd;

    static Words all(uint32_t w) { return {Avx512::all(w), Avx512::all(w)}; }
    static Words load(const uint32_t* p) {
      return {_mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
              _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8)))};
    }
    void store(uint32_t* p) const {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi64_epi32(even));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), _mm512_cvtepi64_epi32(odd));
    }
  };

  static Word all(uint32_t w) { return _mm512_set1_epi32(static_cast<int>(w)); }

  static void multiply(Words x, Word m, Words& high, Words& low) {
    low = {_mm512_mul_epu32(x.even, m), _mm512_mul_epu32(x.odd, m)};
    high = {_mm512_srli_epi64(low.even, 32), _mm512_srli_epi64(low.odd, 32)};
  }
  static Words exclusive_or(Words a, Words b, Word c) {
    return {_mm512_ternarylogic_epi32(a.even, b.even, c, 0x96),
            _mm512_ternarylogic_epi32(a.odd, b.odd, c, 0x96)};
  }

  // In the order that comes out of `transposed` as 256 bytes in a row.
  static Words counters(uint32_t first) {
    const __m512i base = all(first);
    return {_mm512_add_epi32(base, _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0)),
            _mm512_add_epi32(base, _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4))};
  }

  // --- Bytes.
  struct Bytes {
    static constexpr int size = 64;
    static constexpr int step = 1;  // bits of `equal` per byte
    __m512i v;

    static Bytes all(uint8_t b) { return {_mm512_set1_epi8(static_cast<char>(b))}; }
    void store(uint8_t* p) const { _mm512_storeu_si512(p, v); }
    // 0xff where a byte is at least `least`, else 0.
    Bytes at_least(Bytes least) const {
      return {_mm512_movm_epi8(_mm512_cmpge_epu8_mask(v, least.v))};
    }
    uint64_t equal(Bytes other) const { return _mm512_cmpeq_epi8_mask(v, other.v); }
  };

  static void transposed(const Words (&w)[4], Bytes* out) {
    __m512i r[4];
    for (int j = 0; j < 4; ++j)
      r[j] = _mm512_mask_shuffle_epi32(w[j].even, 0xAAAA, w[j].odd, _MM_PERM_CCAA);
    const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
    const __m512i c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
    out[0] = {_mm512_unpacklo_epi64(a, c)};
    out[1] = {_mm512_unpackhi_epi64(a, c)};
    out[2] = {_mm512_unpacklo_epi64(b, d)};
    out[3] = {_mm512_unpackhi_epi64(b, d)};
  }

  // --- Numbers. A mask is one byte per element, 0 or 0xff.
  struct Single {
    static constexpr int size = 16;
    __m512 v;

    static Single all(double a) { return {_mm512_set1_ps(static_cast<float>(a))}; }
    friend Single operator*(Single a, Single b) { return {_mm512_mul_ps(a.v, b.v)}; }
    friend Single operator+(Single a, Single b) { return {_mm512_add_ps(a.v, b.v)}; }
    Single rectified() const { return {_mm512_max_ps(_mm512_setzero_ps(), v)}; }  // nan stays
    Single where(const uint8_t* mask, Single otherwise) const {
      return {_mm512_mask_mov_ps(otherwise.v, bits(mask), v)};
    }
    Single where_passed(Single y, Single otherwise) const {
      const auto k = _mm512_cmp_ps_mask(y.v, _mm512_setzero_ps(), _CMP_NLE_UQ);
      return {_mm512_mask_mov_ps(otherwise.v, k, v)};
    }
    static __mmask16 bits(const uint8_t* mask) {
      return _mm_movepi8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(mask)));
    }
  };

  // 32 bfloat16: a 32-bit lane holds two, and each is made a float32 where it lies.
  struct Pair {
    static constexpr int size = 32;
    Single even, odd;

    static Pair all(double a) { return {Single::all(a), Single::all(a)}; }
    friend Pair operator*(Pair a, Pair b) { return {a.even * b.even, a.odd * b.odd}; }
    friend Pair operator+(Pair a, Pair b) { return {a.even + b.even, a.odd + b.odd}; }
    Pair rectified() const { return {even.rectified(), odd.rectified()}; }
    Pair where(const uint8_t* mask, Pair otherwise) const {
      const __m256i m = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask));
      const __mmask16 evens = _mm256_test_epi16_mask(m, _mm256_set1_epi16(0xff));
      return {{_mm512_mask_mov_ps(otherwise.even.v, evens, even.v)},
              {_mm512_mask_mov_ps(otherwise.odd.v, _mm256_movepi16_mask(m), odd.v)}};
    }
    Pair where_passed(Pair y, Pair otherwise) const {
      return {even.where_passed(y.even, otherwise.even),
              odd.where_passed(y.odd, otherwise.odd)};
    }
  };

  struct Double {
    static constexpr int size = 8;
    __m512d v;

    static Double all(double a) { return {_mm512_set1_pd(a)}; }
    friend Double operator*(Double a, Double b) { return {_mm512_mul_pd(a.v, b.v)}; }
    friend Double operator+(Double a, Double b) { return {_mm512_add_pd(a.v, b.v)}; }
    Double rectified() const { return {_mm512_max_pd(_mm512_setzero_pd(), v)}; }
    Double where(const uint8_t* mask, Double otherwise) const {
      const __m128i m = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask));
      return {_mm512_mask_mov_pd(otherwise.v, static_cast<__mmask8>(_mm_movepi8_mask(m)), v)};
    }
    Double where_passed(Double y, Double otherwise) const {
      const auto k = _mm512_cmp_pd_mask(y.v, _mm512_setzero_pd(), _CMP_NLE_UQ);
      return {_mm512_mask_mov_pd(otherwise.v, k, v)};
    }
  };

  static Single load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static void store(float* p, Single a) { _mm512_storeu_ps(p, a.v); }

  static Double load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static void store(double* p, Double a) { _mm512_storeu_pd(p, a.v); }

  static Single load(const float16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static void store(float16* p, Single a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static Pair load(const bfloat16* p) {
    const __m512i both = _mm512_loadu_si512(p);
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(both, 16))},
            {_mm512_castsi512_ps(_mm512_and_si512(both, all(0xffff0000u)))}};
  }
  static void store(bfloat16* p, Pair a) { _mm512_storeu_si512(p, joined(a)); }

  // Zero where the mask is.
  template <class D, class V>
  static void store_kept(D* p, V a, const uint8_t* mask) {
    store(p, a.where(mask, V::all(0)));
  }
  static void store_kept(bfloat16* p, Pair a, const uint8_t* mask) {
    const __m256i m = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask));
    _mm512_storeu_si512(p, _mm512_maskz_mov_epi16(_mm256_movepi8_mask(m), joined(a)));
  }

 private:
  static __m512i joined(Pair a) {
    const __m512i even = _mm512_srli_epi32(rounded(a.even), 16);
    return _mm512_mask_blend_epi16(0xAAAAAAAAu, even, rounded(a.odd));
  }
  // To nearest, ties to even, in the upper half. (dtypes.hpp says why nan needs no care.)
  static __m512i rounded(Single a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __mmask16 odd = _mm512_test_epi32_mask(bits, all(0x10000));
    return _mm512_add_epi32(bits, _mm512_mask_blend_epi32(odd, all(0x7fff), all(0x8000)));
  }
};

}  // namespace
}  // namespace dropkit
