#include "kernels.hpp"
#include "simd_neon.hpp"

namespace dropkit {
extern const Target kNeon = target<Neon>();
}
