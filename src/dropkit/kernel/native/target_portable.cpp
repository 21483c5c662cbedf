#include "kernels.hpp"
#include "simd_portable.hpp"

namespace dropkit {
extern const Target kPortable = target<Portable>();
}
