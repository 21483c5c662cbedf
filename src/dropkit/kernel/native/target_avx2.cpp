#include "kernels.hpp"
#include "simd_avx2.hpp"

namespace dropkit {
extern const Target kAvx2 = target<Avx2>();
}
