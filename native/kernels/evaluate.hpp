#pragma once

#include "kernels.hpp"

namespace layertap::LAYERTAP_ISA {

void evaluate(Function f, const float* in, float* out, std::int64_t count);

}  // namespace layertap::LAYERTAP_ISA
