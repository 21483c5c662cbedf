#include "kernels.hpp"
#include "simd_avx512.hpp"

namespace dropkit {
extern const Target kAvx512 = target<Avx512>();
}
