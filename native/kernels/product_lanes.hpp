// Products by vector instructions, for the formats that the instruction set multiplies.
#pragma once

#include "kernels.hpp"

namespace layertap::LAYERTAP_ISA {

std::size_t product_lanes_scratch();  // bytes
void product_lanes(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
                   std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue, void* scratch);

}  // namespace layertap::LAYERTAP_ISA
