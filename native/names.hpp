// The names that users and Python give to kernels, precisions, formats and functions. Throw std::invalid_argument for a
// name that does not exist.
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "batch.hpp"
#include "kernels.hpp"
#include "model.hpp"

namespace layertap {

template <typename Value, std::size_t count>
Value named(const std::array<std::pair<std::string_view, Value>, count>& values, std::string_view name, const char* what) {
  std::string known;
  for (const auto& [own, value] : values) {
    if (own == name) return value;
    if (!known.empty()) known += ", ";
    known += own;
  }
  throw std::invalid_argument(std::string(what) + " '" + std::string(name) + "' does not exist; there are " + known);
}

template <typename Value, std::size_t count>
using Names = std::array<std::pair<std::string_view, Value>, count>;

inline const Kernels& kernels_named(const std::string& instruction_set) {
  const Kernels* kernels = kernels_of(instruction_set.c_str());
  if (kernels == nullptr) throw std::invalid_argument("this machine has no instruction set '" + instruction_set + "'");
  return *kernels;
}

inline Precision precision_named(std::string_view name) {
  static constexpr Names<Precision, 4> names{{{"float32", Precision::float32},
                                              {"float32-high", Precision::float32_high},
                                              {"bfloat16", Precision::bfloat16},
                                              {"int8", Precision::int8}}};
  return named(names, name, "precision");
}

inline Activation activation_named(std::string_view name) {
  static constexpr Names<Activation, 6> names{{{"none", Activation::none},
                                               {"gelu", Activation::gelu},
                                               {"gelu_tanh", Activation::gelu_tanh},
                                               {"relu", Activation::relu},
                                               {"silu", Activation::silu},
                                               {"tanh", Activation::tanh}}};
  return named(names, name, "activation");
}

inline Format format_named(std::string_view name) {
  static constexpr Names<Format, 5> names{{{"float32", Format::float32},
                                           {"bfloat16", Format::bfloat16},
                                           {"int8", Format::int8},
                                           {"split2", Format::split2},
                                           {"split3", Format::split3}}};
  return named(names, name, "format");
}

// A format that the kernels multiply.
inline Format product_format_named(const Kernels& kernels, std::string_view name) {
  const Format format = format_named(name);
  if ((format == Format::bfloat16 && !kernels.has_bfloat16) || (format == Format::int8 && !kernels.has_int8) ||
      (parts_of(format) > 1 && !kernels.has_split))
    throw std::invalid_argument("instruction set '" + std::string(kernels.name) + "' has no products in " + std::string(name));
  return format;
}

// The dtype of a stored table, as safetensors names it.
inline Table::Type table_type_named(std::string_view name) {
  static constexpr Names<Table::Type, 3> names{
      {{"F32", Table::Type::float32}, {"BF16", Table::Type::bfloat16}, {"F16", Table::Type::float16}}};
  return named(names, name, "table type");
}

inline Reduce reduce_named(std::string_view name) {
  static constexpr Names<Reduce, 5> names{
      {{"first", Reduce::first}, {"last", Reduce::last}, {"sum", Reduce::sum}, {"max", Reduce::max}, {"min", Reduce::min}}};
  return named(names, name, "reduction");
}

inline Maps maps_named(std::string_view name) {
  static constexpr Names<Maps, 2> names{{{"heads", Maps::heads}, {"mean", Maps::mean}}};
  return named(names, name, "kind of attention maps");
}

// Whether the fold is the maximum and not the sum.
inline bool is_max_named(std::string_view name) {
  static constexpr Names<bool, 2> names{{{"sum", false}, {"max", true}}};
  return named(names, name, "fold");
}

}  // namespace layertap
