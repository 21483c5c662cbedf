#include "processor.hpp"

// DROPKIT_AVX2 and its like: what the build has.
#if defined(DROPKIT_AVX2) && defined(_MSC_VER)
#include <intrin.h>
#endif

namespace dropkit {
namespace {

#if defined(DROPKIT_AVX2) && !defined(_MSC_VER)
// These ask the operating system too: it has to save the registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(DROPKIT_AVX2)
bool bit(int word, int position) { return (static_cast<unsigned>(word) >> position & 1) != 0; }

// Registers that the operating system saves: 0x6 for AVX, 0xe6 for AVX-512.
bool saved(unsigned long long registers) {
  int leaf1[4];
  __cpuidex(leaf1, 1, 0);
  return bit(leaf1[2], 27) && (_xgetbv(0) & registers) == registers;
}
bool has_avx2() {
  int leaf1[4], leaf7[4];
  __cpuidex(leaf1, 1, 0);
  __cpuidex(leaf7, 7, 0);
  const bool f16c = bit(leaf1[2], 29), bmi = bit(leaf7[1], 3) && bit(leaf7[1], 8);
  return saved(0x6) && bit(leaf7[1], 5) && f16c && bmi;
}
bool has_avx512() {
  int leaf7[4];
  __cpuidex(leaf7, 7, 0);
  bool all = has_avx2() && saved(0xe6);
  for (int position : {16, 17, 30, 31}) all = all && bit(leaf7[1], position);  // f, dq, bw, vl
  return all;
}
#endif

}  // namespace

const std::vector<const Target*>& targets() {
  static const std::vector<const Target*> found = [] {
    std::vector<const Target*> best_first;
#ifdef DROPKIT_AVX512
    if (has_avx512()) best_first.push_back(&kAvx512);
#endif
#ifdef DROPKIT_AVX2
    if (has_avx2()) best_first.push_back(&kAvx2);
#endif
#ifdef DROPKIT_NEON
    best_first.push_back(&kNeon);
#endif
    best_first.push_back(&kPortable);
    return best_first;
  }();
  return found;
}

}  // namespace dropkit
