// NEON of 64-bit Arm, which every such processor has.
#pragma once
#include <arm_neon.h>

#include "dtypes.hpp"

namespace dropkit {
namespace {

struct Neon {
  static constexpr int chains = 2;  // of Philox, side by side
  static constexpr const char* name = "neon";

  // --- Philox: a word of each of 4 blocks.
  using Word = uint32x4_t;
  struct Words {
    static constexpr int size = 4;
    uint32x4_t v;

    static Words all(uint32_t w) { return {vdupq_n_u32(w)}; }
    static Words load(const uint32_t* p) { return {vld1q_u32(p)}; }
    void store(uint32_t* p) const { vst1q_u32(p, v); }
  };

  static Word all(uint32_t w) { return vdupq_n_u32(w); }

  static void multiply(Words x, Word m, Words& high, Words& low) {
    const uint32x4_t a = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(x.v), vget_low_u32(m)));
    const uint32x4_t b = vreinterpretq_u32_u64(vmull_high_u32(x.v, m));
    low = {vuzp1q_u32(a, b)};
    high = {vuzp2q_u32(a, b)};
  }
  static Words exclusive_or(Words a, Words b, Word c) {
    return {veorq_u32(a.v, veorq_u32(b.v, c))};
  }
  static Words counters(uint32_t first) {
    static const uint32_t order[4] = {0, 1, 2, 3};
    return {vaddq_u32(all(first), vld1q_u32(order))};
  }

  // --- Bytes: the 16 of one block.
  struct Bytes {
    static constexpr int size = 16;
    static constexpr int step = 4;  // bits of `equal` per byte
    uint8x16_t v;

    static Bytes all(uint8_t b) { return {vdupq_n_u8(b)}; }
    void store(uint8_t* p) const { vst1q_u8(p, v); }
    // 0xff where a byte is at least `least`, else 0.
    Bytes at_least(Bytes least) const { return {vcgeq_u8(v, least.v)}; }
    // NEON has no move of signs to bits; a shift that narrows leaves four bits of each byte, of
    // which one is kept.
    uint64_t equal(Bytes other) const {
      const uint16x8_t same = vreinterpretq_u16_u8(vceqq_u8(v, other.v));
      const uint8x8_t nibbles = vshrn_n_u16(same, 4);
      return vget_lane_u64(vreinterpret_u64_u8(nibbles), 0) & 0x1111111111111111u;
    }
  };

  static void transposed(const Words (&w)[4], Bytes* out) {
    const uint32x4_t a = vzip1q_u32(w[0].v, w[1].v), b = vzip2q_u32(w[0].v, w[1].v);
    const uint32x4_t c = vzip1q_u32(w[2].v, w[3].v), d = vzip2q_u32(w[2].v, w[3].v);
    const auto joined = [](uint64x1_t low, uint64x1_t high) {
      return Bytes{vreinterpretq_u8_u64(vcombine_u64(low, high))};
    };
    const auto pairs = [](uint32x4_t r) { return vreinterpretq_u64_u32(r); };
    out[0] = joined(vget_low_u64(pairs(a)), vget_low_u64(pairs(c)));
    out[1] = joined(vget_high_u64(pairs(a)), vget_high_u64(pairs(c)));
    out[2] = joined(vget_low_u64(pairs(b)), vget_low_u64(pairs(d)));
    out[3] = joined(vget_high_u64(pairs(b)), vget_high_u64(pairs(d)));
  }

  // --- Numbers. A mask is one byte per element, 0 or 0xff.
  struct Single {
    static constexpr int size = 4;
    float32x4_t v;

    static Single all(double a) { return {vdupq_n_f32(static_cast<float>(a))}; }
    friend Single operator*(Single a, Single b) { return {vmulq_f32(a.v, b.v)}; }
    friend Single operator+(Single a, Single b) { return {vaddq_f32(a.v, b.v)}; }
    Single rectified() const {  // nan and -0 stay
      return {vbslq_f32(vcltzq_f32(v), vdupq_n_f32(0), v)};
    }
    Single where(const uint8_t* mask, Single otherwise) const {
      uint32_t four;
      std::memcpy(&four, mask, sizeof four);
      const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(four));
      const int32x4_t wide = vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
      return {vbslq_f32(vreinterpretq_u32_s32(wide), v, otherwise.v)};
    }
    Single where_passed(Single y, Single otherwise) const {
      return {vbslq_f32(vclezq_f32(y.v), otherwise.v, v)};
    }
  };

  struct Double {
    static constexpr int size = 2;
    float64x2_t v;

    static Double all(double a) { return {vdupq_n_f64(a)}; }
    friend Double operator*(Double a, Double b) { return {vmulq_f64(a.v, b.v)}; }
    friend Double operator+(Double a, Double b) { return {vaddq_f64(a.v, b.v)}; }
    Double rectified() const { return {vbslq_f64(vcltzq_f64(v), vdupq_n_f64(0), v)}; }
    Double where(const uint8_t* mask, Double otherwise) const {
      const uint64x2_t m = {mask[0] ? ~uint64_t{0} : 0, mask[1] ? ~uint64_t{0} : 0};
      return {vbslq_f64(m, v, otherwise.v)};
    }
    Double where_passed(Double y, Double otherwise) const {
      return {vbslq_f64(vclezq_f64(y.v), otherwise.v, v)};
    }
  };

  static Single load(const float* p) { return {vld1q_f32(p)}; }
  static void store(float* p, Single a) { vst1q_f32(p, a.v); }

  static Double load(const double* p) { return {vld1q_f64(p)}; }
  static void store(double* p, Double a) { vst1q_f64(p, a.v); }

  static Single load(const float16* p) {
    return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))};
  }
  static void store(float16* p, Single a) {
    vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(a.v)));
  }

  static Single load(const bfloat16* p) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16))};
  }
  // To nearest, ties to even. (dtypes.hpp says why nan needs no care.)
  static void store(bfloat16* p, Single a) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a.v);
    const uint32x4_t last = vandq_u32(vshrq_n_u32(bits, 16), all(1));
    const uint32x4_t sum = vaddq_u32(vaddq_u32(bits, all(0x7fff)), last);
    vst1_u16(&p->bits, vshrn_n_u32(sum, 16));
  }

  // Zero where the mask is.
  template <class D, class V>
  static void store_kept(D* p, V a, const uint8_t* mask) {
    store(p, a.where(mask, V::all(0)));
  }
};

}  // namespace
}  // namespace dropkit
