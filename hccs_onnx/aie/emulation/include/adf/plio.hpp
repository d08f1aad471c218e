// PLIO files as the simulators have them: one beat of 32, 64 or 128 bits a line, its elements separated by blanks.
//
// Names are relative to AIE_EMULATION_INPUT_DIR (default: here) and AIE_EMULATION_OUTPUT_DIR (default:
// x86simulator_output, where x86simulator puts its results). Lines with TLAST and time stamps ("T 120 ns") are skipped.
#pragma once

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#ifdef _WIN32
#include <direct.h>
#else
#include <sys/stat.h>
#endif

#include "endpoint.hpp"

namespace adf {

enum plio_type { plio_32_bits = 32, plio_64_bits = 64, plio_128_bits = 128 };

namespace detail {

struct plio_node {
  std::string name, file;
  unsigned bits = 32;
  bool is_input = true;
  std::shared_ptr<endpoint> end = std::make_shared<endpoint>();
  std::vector<unsigned char> written;  // all beats so far, of an output
};

struct file_closer {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using file_handle = std::unique_ptr<std::FILE, file_closer>;

// The file in the folder that the environment variable names.
inline std::string path_in(const char* variable, const char* fallback, const std::string& file) {
  const char* folder = std::getenv(variable);
  return std::string(folder != nullptr ? folder : fallback) + "/" + file;
}
inline void make_parents(const std::string& path) {  // <filesystem> would double the time to compile a graph
  for (std::size_t at = path.find_first_of("/\\", 1); at != std::string::npos; at = path.find_first_of("/\\", at + 1)) {
#ifdef _WIN32
    static_cast<void>(_mkdir(path.substr(0, at).c_str()));
#else
    static_cast<void>(mkdir(path.substr(0, at).c_str(), 0777));
#endif
  }
}
inline file_handle open_file(const std::string& path, const char* mode) {
  file_handle file(std::fopen(path.c_str(), mode));
  if (!file) emulation::fail("%s: cannot be opened", path.c_str());
  return file;
}

template <class T>
void append(std::vector<unsigned char>& bytes, T value) {
  const auto* at = reinterpret_cast<const unsigned char*>(&value);
  bytes.insert(bytes.end(), at, at + sizeof value);
}

inline void append_text(std::vector<unsigned char>& bytes, element_type type, const char* text, const char* where) {
  char* end = nullptr;
  if (type.kind == 'f') {
    append(bytes, std::strtof(text, &end));
    if (*end != '\0') emulation::fail("%s: not a number (%s)", where, text);
    return;
  }
  const long long value = std::strtoll(text, &end, 10);
  const int bits = static_cast<int>(type.bytes * 8);
  const long long low = type.kind == 'i' ? -(1LL << (bits - 1)) : 0;
  const long long high = type.kind == 'i' ? (1LL << (bits - 1)) - 1 : (1LL << bits) - 1;
  if (*end != '\0' || value < low || value > high) {
    emulation::fail("%s: not an element of its port (%s, needs %lld..%lld)", where, text, low, high);
  }
  for (unsigned i = 0; i < type.bytes; ++i) bytes.push_back(static_cast<unsigned char>(value >> (8 * i) & 0xff));
}

inline std::vector<unsigned char> read_beats(const plio_node& plio, element_type type) {
  const std::string path = path_in("AIE_EMULATION_INPUT_DIR", ".", plio.file);
  const file_handle file = open_file(path, "r");
  const unsigned expected = plio.bits / 8 / type.bytes;
  std::vector<unsigned char> bytes;
  std::string line, token;
  unsigned number = 0;
  for (int c = 0; c != EOF;) {
    line.clear();
    while ((c = std::fgetc(file.get())) != EOF && c != '\n') line.push_back(static_cast<char>(c));
    ++number;
    const std::string where = path + ":" + std::to_string(number);
    unsigned elements = 0;
    for (std::size_t at = 0; at < line.size();) {
      token.clear();
      while (at < line.size() && std::isspace(static_cast<unsigned char>(line[at]))) ++at;
      while (at < line.size() && !std::isspace(static_cast<unsigned char>(line[at]))) token.push_back(line[at++]);
      if (token.empty() || token == "TLAST") continue;
      if (token == "T") break;  // a time stamp
      append_text(bytes, type, token.c_str(), where.c_str());
      ++elements;
    }
    if (elements != 0 && elements != expected) {
      emulation::fail("%s: %u elements in a line of a %u-bit PLIO (needs %u)", where.c_str(), elements, plio.bits,
                      expected);
    }
  }
  return bytes;
}

inline void write_element(std::FILE* file, element_type type, const unsigned char* at) {
  if (type.kind == 'f') {
    float value;
    std::memcpy(&value, at, sizeof value);
    std::fprintf(file, "%.9g", static_cast<double>(value));
    return;
  }
  std::uint64_t value = 0;
  for (unsigned i = 0; i < type.bytes; ++i) value |= std::uint64_t{at[i]} << (8 * i);
  const unsigned unused = 64 - type.bytes * 8;
  if (type.kind == 'i') {
    std::fprintf(file, "%lld", static_cast<long long>(static_cast<std::int64_t>(value << unused) >> unused));
  } else {
    std::fprintf(file, "%llu", static_cast<unsigned long long>(value));
  }
}

inline void write_beats(const plio_node& plio, element_type type) {
  const std::string path = path_in("AIE_EMULATION_OUTPUT_DIR", "x86simulator_output", plio.file);
  make_parents(path);
  const file_handle file = open_file(path, "w");
  const std::size_t in_line = plio.bits / 8 / type.bytes;
  const std::size_t elements = plio.written.size() / type.bytes;
  if (elements % in_line != 0) {
    emulation::fail("%s: the last beat is not full (%zu elements, needs a multiple of %zu)", path.c_str(), elements,
                    in_line);
  }
  for (std::size_t i = 0; i < elements; ++i) {
    write_element(file.get(), type, plio.written.data() + i * type.bytes);
    std::fputc((i + 1) % in_line == 0 ? '\n' : ' ', file.get());
  }
  if (std::ferror(file.get())) emulation::fail("%s: cannot be written", path.c_str());
}

}  // namespace detail
}  // namespace adf
