// The instruction sets and cores of this machine.
#pragma once

#include <string>
#include <vector>

namespace layertap {

// Names of the sets that this build, the processor and the operating system support, best first: "amx", "avx512_bf16",
// "avx512_vnni", "avx512", "avx2", and "amx_emulated", the AMX kernels with tiles in software, for tests on any machine
// with "avx512_bf16".
std::vector<std::string> instruction_sets();

// Cores that this process may run on.
int available_threads();

}  // namespace layertap
