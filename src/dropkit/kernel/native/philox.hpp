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
constexpr int kRounds = 10, kBetween = 8;

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
  template <int N>
  void scattered(const Words (&low)[N], const Words (&high)[N], uint32_t domain,
                 Blocks<S> (&c)[N]) const {
    for (int n = 0; n < N; ++n) c[n] = {{low[n], high[n], Words::all(0), Words::all(domain)}};
    rounds<0>(c, [](int) {});
  }

  // N times the `Words::size` blocks from number `first`, a multiple of all these; S::transposed
  // puts them in order. Only the low word of the counter differs between them, and its third word
  // is 0, so half of the first two rounds is the same for all: plain arithmetic, done once.
  // `between(0)` to `between(kBetween - 1)` are called between the rounds.
  template <int N, class Between>
  void sequence(uint64_t first, uint32_t domain, Blocks<S> (&c)[N], Between between) const {
    const uint32_t same = static_cast<uint32_t>(first >> 32) ^ plain0_[0];
    const uint64_t product = uint64_t{kMultiplier0} * same;
    const Word third = S::all(domain ^ plain1_[0]);
    const Word mixed = S::all(static_cast<uint32_t>(product >> 32) ^ plain1_[1]);
    const Words zero = Words::all(0), fourth = Words::all(static_cast<uint32_t>(product));
    for (int n = 0; n < N; ++n) {
      const auto number = static_cast<uint32_t>(first) + static_cast<uint32_t>(n * Words::size);
      Words high0, low0, high1, low1;
      S::multiply(S::counters(number), S::all(kMultiplier0), high0, low0);
      S::multiply(S::exclusive_or(high0, zero, third), S::all(kMultiplier1), high1, low1);
      c[n] = {{S::exclusive_or(high1, zero, key0_[1]), low1, S::exclusive_or(low0, zero, mixed),
               fourth}};
    }
    rounds<kRounds - kBetween>(c, between);
  }

 private:
  // N independent chains, side by side: one alone would wait for its multiplications.
  template <int First, int N, class Between>
  void rounds(Blocks<S> (&c)[N], Between between) const {
    const Word multiplier0 = S::all(kMultiplier0), multiplier1 = S::all(kMultiplier1);
    for (int r = First; r < kRounds; ++r) {
      for (int n = 0; n < N; ++n) {
        auto& [w0, w1, w2, w3] = c[n].word;
        Words high0, low0, high1, low1;
        S::multiply(w0, multiplier0, high0, low0);
        S::multiply(w2, multiplier1, high1, low1);
        w0 = S::exclusive_or(high1, w1, key0_[r]);
        w2 = S::exclusive_or(high0, w3, key1_[r]);
        w1 = low1;
        w3 = low0;
      }
      between(r - First);
    }
  }

  uint32_t plain0_[kRounds], plain1_[kRounds];
  Word key0_[kRounds], key1_[kRounds];
};

}  // namespace
}  // namespace dropkit
