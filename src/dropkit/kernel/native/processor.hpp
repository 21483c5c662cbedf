// Which kernels this build has, and this processor can run.
#pragma once
#include <vector>

#include "job.hpp"

namespace dropkit {

const std::vector<const Target*>& targets();  // best first; never empty

}  // namespace dropkit
