// How a graph runs on the host.
#pragma once

#include "graph.hpp"

namespace adf {

namespace detail {

// The producer at the far end of the graph ports that this end hangs on.
inline endpoint* source_of(const endpoint& consumer) {
  endpoint* at = consumer.driver.get();
  while (at != nullptr && at->kind == port_kind::relay) at = at->driver.get();
  return at;
}
// True where a value given to `entry` arrives at `parameter`.
inline bool is_fed_by(const endpoint& parameter, const endpoint& entry) {
  const endpoint* at = &parameter;
  while (at != nullptr && at != &entry) at = at->driver.get();
  return at == &entry;
}
inline void attach(endpoint& consumer, const char* who) {
  consumer.queue.clear();
  endpoint* producer = source_of(consumer);
  if (producer == nullptr) emulation::fail("%s: an input is not connected", who);
  for (const endpoint* other : producer->consumers) {
    if (other == &consumer) return;
  }
  producer->consumers.push_back(&consumer);
}
// A PLIO's elements are those of the kernel port at the other end.
inline element_type type_of(const plio_node& plio) {
  element_type type;
  if (plio.is_input) {
    for (const endpoint* consumer : plio.end->consumers) {
      if (type.kind != 0 && type != consumer->type) {
        emulation::fail("%s: read as two types", plio.name.c_str());
      }
      type = consumer->type;
    }
  } else if (const endpoint* producer = source_of(*plio.end)) {
    type = producer->type;
  }
  if (type.kind == 0) emulation::fail("%s: not connected to a kernel", plio.name.c_str());
  if (type.bytes > 4) emulation::fail("%s: elements of %u bytes (needs 1 to 4)", plio.name.c_str(), type.bytes);
  return type;
}

// Kernels that share a core share its time.
inline void require_room_on_tiles(const std::vector<std::shared_ptr<kernel_node>>& kernels) {
  for (const auto& k : kernels) {
    if (k->column < 0) continue;
    double load = 0;
    for (const auto& other : kernels) {
      if (other->column == k->column && other->row == k->row) load += other->runtime_ratio;
    }
    if (load > 1.0 + 1e-9) emulation::fail("tile (%d, %d): kernels with runtime ratios above 1", k->column, k->row);
  }
}

// Buffers with an address lie in a tile's data memory, and apart from each other.
inline void require_room_in_memory(const std::vector<std::shared_ptr<kernel_node>>& kernels) {
  constexpr std::size_t memory_bytes = __AIE_ARCH__ == 10 ? 32768 : 65536;
  struct range {
    int column, row;
    std::size_t from, to;
  };
  std::vector<range> taken;
  for (const auto& k : kernels) {
    for (const auto& end : k->ends) {
      if (end->kind != port_kind::buffer) continue;
      for (const placement& p : end->places) {
        if (!p.is_address) continue;
        const std::size_t from = static_cast<std::size_t>(p.index), to = from + end->buffer_bytes();
        if (p.index < 0 || to > memory_bytes) {
          emulation::fail("%s: a buffer at %d lies outside of tile (%d, %d)", k->name(), p.index, p.column, p.row);
        }
        for (const range& other : taken) {
          if (p.column == other.column && p.row == other.row && from < other.to && other.from < to) {
            emulation::fail("%s: buffers at %d and %zu of tile (%d, %d) overlap", k->name(), p.index, other.from,
                            p.column, p.row);
          }
        }
        taken.push_back({p.column, p.row, from, to});
      }
    }
  }
}

}  // namespace detail

inline void graph::init() {
  kernels_ = detail::registry::living(detail::the_registry().kernels);
  plios_ = detail::registry::living(detail::the_registry().plios);
  detail::require_room_on_tiles(kernels_);
  detail::require_room_in_memory(kernels_);
  for (const auto& k : kernels_) {
    if (k->runtime_ratio <= 0 || k->runtime_ratio > 1) {
      emulation::fail("%s: runtime ratio not set (%g, needs above 0 and up to 1)", k->name(), k->runtime_ratio);
    }
    for (std::size_t i = 0; i < k->ends.size(); ++i) {
      if (k->ways[i] == direction::in && k->ends[i]->kind != detail::port_kind::parameter) {
        detail::attach(*k->ends[i], k->name());
      }
    }
  }
  for (const auto& plio : plios_) {
    if (plio->is_input) continue;
    detail::attach(*plio->end, plio->name.c_str());
    plio->written.clear();
  }
  for (const auto& k : kernels_) {
    for (std::size_t i = 0; i < k->ends.size(); ++i) {
      const bool is_loose = k->ways[i] == direction::out && k->ends[i]->consumers.empty();
      if (is_loose) emulation::fail("%s: an output is not connected", k->name());
    }
  }
  for (const auto& plio : plios_) {
    if (!plio->is_input) continue;
    const std::vector<unsigned char> bytes = detail::read_beats(*plio, detail::type_of(*plio));
    plio->end->produce(bytes.data(), bytes.size());
  }
  is_initialised_ = true;
}

// Runs every kernel `iterations` times (times its repetition count); -1: as often as there is data.
inline void graph::run(int iterations) {
  emulation::require(is_initialised_, "graph.run() without graph.init()");
  std::vector<unsigned long> remaining;
  for (const auto& k : kernels_) {
    if (iterations < 0 && !k->has_input()) emulation::fail("%s: without inputs, run() would not end", k->name());
    remaining.push_back(iterations < 0 ? ~0UL : static_cast<unsigned long>(iterations) * k->repetitions);
  }
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t i = 0; i < kernels_.size(); ++i) {
      while (remaining[i] > 0 && kernels_[i]->is_ready()) {
        kernels_[i]->fire();
        --remaining[i];
        moved = true;
      }
    }
  }
  for (std::size_t i = 0; iterations >= 0 && i < kernels_.size(); ++i) {
    if (remaining[i] > 0) {
      emulation::fail("%s: lacks input data for %lu of %lu runs", kernels_[i]->name(), remaining[i],
                      static_cast<unsigned long>(iterations) * kernels_[i]->repetitions);
    }
  }
  collect_outputs();
}

inline void graph::end() {
  write_outputs();
  write_report();
  is_initialised_ = false;
}

inline void graph::collect_outputs() {
  for (const auto& plio : plios_) {
    if (plio->is_input) continue;
    detail::byte_queue& queue = plio->end->queue;
    plio->written.insert(plio->written.end(), queue.data(), queue.data() + queue.size());
    queue.clear();
  }
}

inline void graph::write_outputs() {
  for (const auto& plio : plios_) {
    if (!plio->is_input) detail::write_beats(*plio, detail::type_of(*plio));
  }
}

// AIE_EMULATION_REPORT=FILE: what each kernel did, as JSON.
inline void graph::write_report() const {
  const char* path = std::getenv("AIE_EMULATION_REPORT");
  if (path == nullptr) return;
  const detail::file_handle file = detail::open_file(path, "w");
  std::fputs("[", file.get());
  const char* separator = "\n";
  for (const auto& k : kernels_) {
    std::fprintf(file.get(), "%s  {\"source\": \"%s\", \"column\": %d, \"row\": %d, \"runs\": %lu", separator,
                 k->source.c_str(), k->column, k->row, k->runs);
    k->counts.each([&file](const char* name, unsigned long long operations) {
      std::fprintf(file.get(), ", \"%s\": %llu", name, operations);
    });
    std::fputs("}", file.get());
    separator = ",\n";
  }
  std::fputs("\n]\n", file.get());
}

inline void graph::set_parameter(const port_base& p, const void* from, std::size_t size, detail::element_type type) {
  emulation::require(is_initialised_, "graph.update() without graph.init()");
  bool found = false;
  for (const auto& k : kernels_) {
    for (const auto& end : k->ends) {
      if (end->kind != detail::port_kind::parameter || !detail::is_fed_by(*end, *p.end)) continue;
      if (end->type != type || end->parameter.size() != size * type.bytes) {
        emulation::fail("%s: update() with %zu elements of %u bytes for a parameter of %zu of %u", k->name(), size,
                        type.bytes, end->parameter.size() / end->type.bytes, end->type.bytes);
      }
      std::memcpy(end->parameter.data(), from, end->parameter.size());
      end->is_parameter_set = true;
      found = true;
    }
  }
  emulation::require(found, "graph.update(): the port leads to no parameter");
}

inline void graph::get_parameter(const port_base& p, void* to, std::size_t size, detail::element_type type) {
  emulation::require(is_initialised_, "graph.read() without graph.init()");
  for (const auto& k : kernels_) {
    for (const auto& end : k->ends) {
      const bool is_source = p.end == end || detail::source_of(*p.end) == end.get();
      if (end->kind != detail::port_kind::parameter || !is_source) continue;
      if (end->type != type || end->parameter.size() != size * type.bytes) {
        emulation::fail("%s: read() of %zu elements of %u bytes", k->name(), size, type.bytes);
      }
      std::memcpy(to, end->parameter.data(), end->parameter.size());
      return;
    }
  }
  emulation::fail("graph.read(): the port comes from no parameter");
}

}  // namespace adf
