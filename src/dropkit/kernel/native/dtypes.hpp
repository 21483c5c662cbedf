// Element types, and the two half precisions by plain arithmetic.
#pragma once
#include <cstdint>
#include <cstring>

namespace dropkit {

enum class DType : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

namespace {

inline uint32_t bits_of(float a) {
  uint32_t b;
  std::memcpy(&b, &a, sizeof b);
  return b;
}
inline float float_of(uint32_t b) {
  float a;
  std::memcpy(&a, &b, sizeof a);
  return a;
}

inline float widened(float a) { return a; }
inline double widened(double a) { return a; }
inline void narrow(float a, float& out) { out = a; }
inline void narrow(double a, double& out) { out = a; }

inline float widened(bfloat16 a) { return float_of(uint32_t{a.bits} << 16); }

// Ties go to even. A nan needs no care: what is computed from bfloat16 operands and sound scales
// is a nan whose lower 16 bits are 0, and adding at most 0x8000 to those carries nothing.
inline void narrow(float a, bfloat16& out) {
  const uint32_t b = bits_of(a);
  out.bits = static_cast<uint16_t>((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

inline float widened(float16 a) {
  const uint32_t sign = uint32_t{a.bits} >> 15 << 31, rest = a.bits & 0x7fffu;
  if (rest >= 0x7c00) {  // inf or nan; a nan becomes a quiet one
    const uint32_t quiet = rest > 0x7c00 ? 0x400000u : 0u;
    return float_of(sign | 0x7f800000u | quiet | (rest & 0x3ffu) << 13);
  }
  // The exponents differ by 112; a multiplication by 2^112 also puts denormals right.
  return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112f));
}

inline void narrow(float a, float16& out) {
  const uint32_t b = bits_of(a), sign = b >> 31 << 15;
  uint32_t rest = b & 0x7fffffffu;
  if (rest > 0x7f800000u) {
    rest = 0x7e00u | (rest >> 13 & 0x3ffu);
  } else if (rest >= 0x477ff000u) {  // 65520 and above round to inf
    rest = 0x7c00u;
  } else if (rest < 0x38800000u) {  // below 2^-14: the sum's last bit is worth 2^-24
    rest = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);
  } else {
    rest = (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
  }
  out.bits = static_cast<uint16_t>(sign | rest);
}

}  // namespace
}  // namespace dropkit
