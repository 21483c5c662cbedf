// Plain C++: short loops over small arrays, which compilers turn into what the processor has.
#pragma once
#include "dtypes.hpp"

namespace dropkit {
namespace {

struct Portable {
  static constexpr int chains = 1;  // of Philox, side by side
  static constexpr const char* name = "portable";

  // --- Philox: a word of each of 4 blocks.
  using Word = uint32_t;
  struct Words {
    static constexpr int size = 4;
    uint32_t v[size];

    static Words all(uint32_t w) { return {{w, w, w, w}}; }
    static Words load(const uint32_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
    void store(uint32_t* p) const { std::memcpy(p, v, sizeof v); }
  };

  static Word all(uint32_t w) { return w; }

  static void multiply(Words x, Word m, Words& high, Words& low) {
    for (int i = 0; i < Words::size; ++i) {
      const uint64_t product = uint64_t{x.v[i]} * m;
      high.v[i] = static_cast<uint32_t>(product >> 32);
      low.v[i] = static_cast<uint32_t>(product);
    }
  }
  static Words exclusive_or(Words a, Words b, Word c) {
    for (int i = 0; i < Words::size; ++i) a.v[i] ^= b.v[i] ^ c;
    return a;
  }
  static Words counters(uint32_t first) { return {{first, first + 1, first + 2, first + 3}}; }

  // --- Bytes: the 16 of one block.
  struct Bytes {
    static constexpr int size = 16;
    static constexpr int step = 1;  // bits of `equal` per byte
    uint8_t v[size];

    static Bytes all(uint8_t b) {
      Bytes out;
      std::memset(out.v, b, size);
      return out;
    }
    void store(uint8_t* p) const { std::memcpy(p, v, size); }
    Bytes at_least(Bytes least) const {
      Bytes out;
      for (int i = 0; i < size; ++i) out.v[i] = v[i] >= least.v[i] ? 0xff : 0;
      return out;
    }
    uint64_t equal(Bytes other) const {
      uint8_t same[size];
      for (int i = 0; i < size; ++i) same[i] = v[i] == other.v[i];
      return packed(same) | packed(same + 8) << 8;
    }

   private:
    // Eight bytes of 0 or 1 to eight bits: the product moves byte i to bit 56 + i.
    static uint64_t packed(const uint8_t* p) {
      uint64_t eight;
      std::memcpy(&eight, p, sizeof eight);
      return eight * 0x0102040810204080u >> 56;
    }
  };

  static void transposed(const Words (&w)[4], Bytes* out) {
    for (int block = 0; block < 4; ++block)
      for (int j = 0; j < 4; ++j) std::memcpy(out[block].v + 4 * j, &w[j].v[block], 4);
  }

  // --- Numbers. A mask is one byte per element, 0 or 0xff.
  template <class T>
  struct Numbers {
    static constexpr int size = 8;
    T v[size];

    static Numbers all(double a) {
      Numbers out;
      for (T& e : out.v) e = static_cast<T>(a);
      return out;
    }
    friend Numbers operator*(Numbers a, Numbers b) {
      for (int i = 0; i < size; ++i) a.v[i] *= b.v[i];
      return a;
    }
    friend Numbers operator+(Numbers a, Numbers b) {
      for (int i = 0; i < size; ++i) a.v[i] += b.v[i];
      return a;
    }
    Numbers rectified() const {  // nan stays
      Numbers out;
      for (int i = 0; i < size; ++i) out.v[i] = 0 > v[i] ? 0 : v[i];
      return out;
    }
    Numbers where(const uint8_t* mask, Numbers otherwise) const {
      Numbers out;
      for (int i = 0; i < size; ++i) out.v[i] = mask[i] ? v[i] : otherwise.v[i];
      return out;
    }
    Numbers where_passed(Numbers y, Numbers otherwise) const {
      Numbers out;
      for (int i = 0; i < size; ++i) out.v[i] = y.v[i] <= 0 ? otherwise.v[i] : v[i];
      return out;
    }
  };

  template <class D>
  static auto load(const D* p) {
    Numbers<decltype(widened(*p))> out;
    for (int i = 0; i < out.size; ++i) out.v[i] = widened(p[i]);
    return out;
  }
  template <class D, class T>
  static void store(D* p, Numbers<T> a) {
    for (int i = 0; i < a.size; ++i) narrow(a.v[i], p[i]);
  }

  // Zero where the mask is.
  template <class D, class V>
  static void store_kept(D* p, V a, const uint8_t* mask) {
    store(p, a.where(mask, V::all(0)));
  }
};

}  // namespace
}  // namespace dropkit
