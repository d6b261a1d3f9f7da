// What the processor offers.
#pragma once

#include <string>
#include <vector>

namespace layertap {

// Best first, of: "amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2"; what this processor and kernel have. After
// them "amx_emulated" where "avx512_bf16" is there: the AMX kernels with tiles in software, to test them anywhere.
std::vector<std::string> instruction_sets();

// Cores that this process may run on.
int available_threads();

}  // namespace layertap
