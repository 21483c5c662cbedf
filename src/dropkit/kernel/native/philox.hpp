// Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011), written once over any vector of 32-bit words.
//
// Included by one source per instruction set: all is in an unnamed namespace, or the linker could
// hand a function compiled for AVX-512 to a processor without it.
#pragma once
#include <cstdint>

namespace dropkit {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
constexpr int kRounds = 10;

// What a block is drawn for: the fourth word of its counter. (The third is 0.)
constexpr uint32_t kBytesDomain = 0, kBoundaryDomain = 1, kWordsDomain = 2;

// Four words of each of `Words::size` blocks.
template <class S>
struct Blocks {
  typename S::Words word[4];
};

// The key of every round, ready to be mixed in.
template <class S>
class Philox {
  using Words = typename S::Words;
  using Word = typename S::Word;

 public:
  explicit Philox(uint64_t key) {
    auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
    for (int r = 0; r < kRounds; ++r, low += kWeyl0, high += kWeyl1) {
      plain0_[r] = low;
      plain1_[r] = high;
      key0_[r] = S::all(low);
      key1_[r] = S::all(high);
    }
  }

  // Blocks of any numbers (low and high words).
  Blocks<S> scattered(Words low, Words high, uint32_t domain) const {
    const Words zero = Words::all(0);
    return rounds<0>({low, high, zero, Words::all(domain)});
  }

  // The `Words::size` blocks from number `first`, a multiple of that size; S::transposed puts
  // them in order. Only the low word of the counter differs between them, and its third word is
  // 0, so half of the first two rounds is the same for all: plain arithmetic, done once.
  Blocks<S> sequence(uint64_t first, uint32_t domain) const {
    const uint32_t same = static_cast<uint32_t>(first >> 32) ^ plain0_[0];
    const uint64_t product = uint64_t{kMultiplier0} * same;
    const Words zero = Words::all(0);

    Words high, low;
    S::multiply(S::counters(static_cast<uint32_t>(first)), S::all(kMultiplier0), high, low);
    const Words third = S::exclusive_or(high, zero, S::all(domain ^ plain1_[0]));
    Words high1, low1;
    S::multiply(third, S::all(kMultiplier1), high1, low1);
    const auto mixed = static_cast<uint32_t>(product >> 32) ^ plain1_[1];
    return rounds<2>({S::exclusive_or(high1, zero, key0_[1]), low1,
                      S::exclusive_or(low, zero, S::all(mixed)),
                      Words::all(static_cast<uint32_t>(product))});
  }

 private:
  template <int First>
  Blocks<S> rounds(Blocks<S> c) const {
    const Word multiplier0 = S::all(kMultiplier0), multiplier1 = S::all(kMultiplier1);
    for (int r = First; r < kRounds; ++r) {
      Words high0, low0, high1, low1;
      S::multiply(c.word[0], multiplier0, high0, low0);
      S::multiply(c.word[2], multiplier1, high1, low1);
      c.word[0] = S::exclusive_or(high1, c.word[1], key0_[r]);
      c.word[2] = S::exclusive_or(high0, c.word[3], key1_[r]);
      c.word[1] = low1;
      c.word[3] = low0;
    }
    return c;
  }

  uint32_t plain0_[kRounds], plain1_[kRounds];
  Word key0_[kRounds], key1_[kRounds];
};

}  // namespace
}  // namespace dropkit
