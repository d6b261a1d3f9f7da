#pragma once

#include "kernels.hpp"

namespace layertap::LAYERTAP_ISA {

std::size_t attention_scratch(std::int64_t num_keys, std::int64_t head_size);
void attention(const AttentionHead& head, void* scratch);

}  // namespace layertap::LAYERTAP_ISA
