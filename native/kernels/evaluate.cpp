#include "evaluate.hpp"

#include "math.hpp"

namespace layertap::LAYERTAP_ISA {
namespace {

template <Floats (*f)(Floats)>
void map(const float* in, float* out, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + width <= count; i += width) store(out + i, f(load(in + i)));
  if (i < count) store(out + i, f(load(in + i, count - i)), count - i);
}

}  // namespace

void evaluate(Function f, const float* in, float* out, std::int64_t count) {
  switch (f) {
    case Function::exp: return map<exp>(in, out, count);
    case Function::exp_rounded: return map<exp_rounded>(in, out, count);
    case Function::exp2_rounded: return map<exp2_rounded>(in, out, count);
    case Function::gelu: return map<gelu>(in, out, count);
    case Function::gelu_rounded: return map<gelu_rounded>(in, out, count);
    case Function::gelu_tanh: return map<gelu_tanh>(in, out, count);
    case Function::gelu_tanh_rounded: return map<gelu_tanh_rounded>(in, out, count);
    case Function::silu: return map<silu>(in, out, count);
    case Function::silu_rounded: return map<silu_rounded>(in, out, count);
    case Function::tanh: return map<tanh>(in, out, count);
    case Function::relu: return map<relu>(in, out, count);
  }
}

}  // namespace layertap::LAYERTAP_ISA
