// The graph side: kernels, ports, connections, constraints, and graph.init/update/run/wait/end.
//
// Running is functional: a kernel runs as soon as its buffers are full, in any order that the data allow, and queues
// between kernels have no limit. One top-level graph a program; all kernels that live belong to it.
#pragma once

#include <initializer_list>

#include "kernel_node.hpp"
#include "plio.hpp"

namespace adf {

namespace detail {

// Everything that graphs have made and not yet destroyed.
struct registry {
  std::vector<std::weak_ptr<kernel_node>> kernels;
  std::vector<std::weak_ptr<plio_node>> plios;

  template <class T>
  static std::vector<std::shared_ptr<T>> living(std::vector<std::weak_ptr<T>>& all) {
    std::vector<std::shared_ptr<T>> result;
    std::erase_if(all, [](const auto& item) { return item.expired(); });
    for (const auto& item : all) result.push_back(item.lock());
    return result;
  }
};
inline registry& the_registry() {
  static registry all;
  return all;
}

}  // namespace detail

// -------------------------------------------------------------------------------------------------------------- ports
class port_base {
 public:
  port_base() : end(std::make_shared<detail::endpoint>()) {}
  explicit port_base(std::shared_ptr<detail::endpoint> e) : end(std::move(e)) {}
  std::shared_ptr<detail::endpoint> end;  // the emulation's own
};
template <direction D>
class port : public port_base {
 public:
  using port_base::port_base;
};
using input_port = port<direction::in>;
using output_port = port<direction::out>;
using inout_port = port<direction::inout>;

// The ports of a kernel or PLIO, by number.
template <class Port>
class port_list {
 public:
  Port& operator[](std::size_t index) {
    if (index >= ports_.size()) emulation::fail("there is no port %zu (needs below %zu)", index, ports_.size());
    return ports_[index];
  }
  std::size_t size() const { return ports_.size(); }
  void add(std::shared_ptr<detail::endpoint> end) { ports_.emplace_back(std::move(end)); }  // the emulation's own

 private:
  std::vector<Port> ports_;
};

template <direction D>
port<D>& async(port<D>& p) {
  p.end->is_async = true;
  return p;
}
template <direction D>
port<D>& sync(port<D>& p) {
  p.end->is_async = false;
  return p;
}

// Kinds of connections; the ports decide, the name is for the reader.
struct stream {};
struct parameter {};

template <class...>
class connect {
 public:
  connect(const port_base& from, const port_base& to) : depth(0) {
    if (to.end->driver && to.end->driver != from.end) emulation::fail("a port is connected to two sources");
    to.end->driver = from.end;
  }
  unsigned depth;
};
connect(const port_base&, const port_base&) -> connect<>;

template <class... Kind>
unsigned& fifo_depth(connect<Kind...>& net) {
  return net.depth;
}

// ------------------------------------------------------------------------------------------------------------ kernels
class kernel {
 public:
  port_list<input_port> in;
  port_list<output_port> out;
  port_list<inout_port> inout;
  std::shared_ptr<detail::kernel_node> node;  // the emulation's own

  kernel() = default;
  template <class... Parameters>
  static kernel create(void (*function)(Parameters...)) {
    return kernel(std::make_shared<detail::function_node<Parameters...>>(function));
  }
  // The object's memory is undefined before its constructor runs, and that runs on the kernel's core.
  template <class C, class... Arguments>
  static kernel create_object(Arguments... arguments) {
    C::registerKernelClass();
    kernel k(std::exchange(detail::registered_node(), nullptr));
    constexpr std::align_val_t alignment{alignof(C) > 64 ? alignof(C) : 64};
    void* memory = ::operator new(sizeof(C), alignment);
    emulation::poison(memory, sizeof(C));
    C* object = nullptr;
    k.node->on_core([&] { object = ::new (memory) C(arguments...); });
    k.node->object = std::shared_ptr<void>(object, [](void* p) {
      static_cast<C*>(p)->~C();
      ::operator delete(p, alignment);
    });
    return k;
  }

 private:
  explicit kernel(std::shared_ptr<detail::kernel_node> n) : node(std::move(n)) {
    detail::the_registry().kernels.push_back(node);
    for (std::size_t i = 0; i < node->ends.size(); ++i) {
      switch (node->ways[i]) {
        case direction::in:
          in.add(node->ends[i]);
          break;
        case direction::out:
          out.add(node->ends[i]);
          break;
        case direction::inout:
          inout.add(node->ends[i]);
          break;
      }
    }
  }
};

struct ratio {};
inline std::string& source(kernel& k) {
  return k.node->source;
}
inline std::vector<std::string>& headers(kernel& k) {
  return k.node->headers;
}
template <class Unit>
double& runtime(kernel& k) {
  return k.node->runtime_ratio;
}
inline unsigned& repetition_count(kernel& k) {
  return k.node->repetitions;
}
inline unsigned& stack_size(kernel& k) {
  return k.node->stack_bytes;
}
inline unsigned& heap_size(kernel& k) {
  return k.node->heap_bytes;
}
inline std::vector<unsigned>& dimensions(port_base& p) {
  return p.end->dimensions;
}
inline void single_buffer(port_base&) {}

// ----------------------------------------------------------------------------------------------------------- placement
struct buffer {};
struct stack {};
struct PLIO {};

inline placement tile(int column, int row) {
  return {column, row, -1};
}
inline placement bank(int column, int row, int index) {
  return {column, row, index};
}
inline placement address(int column, int row, int bytes) {
  return {column, row, bytes, true};
}
inline placement shim(int column, int channel = -1) {
  return {column, -1, channel};
}

namespace detail {
// A kernel's tile and where its buffers lie are kept: no value depends on them, but the graph is checked.
class location_setter {
 public:
  explicit location_setter(kernel_node* node = nullptr, endpoint* end = nullptr) : node_(node), end_(end) {}
  void operator=(placement p) const {
    if (end_ != nullptr) end_->places = {p};
    if (node_ == nullptr) return;
    node_->column = p.column;
    node_->row = p.row;
  }
  void operator=(std::initializer_list<placement> places) const {
    if (end_ != nullptr) end_->places = places;
  }

 private:
  kernel_node* node_;
  endpoint* end_;
};
}  // namespace detail

template <class What>
detail::location_setter location(kernel& k) {
  return detail::location_setter(std::is_same_v<What, kernel> ? k.node.get() : nullptr);
}
template <class What>
detail::location_setter location(port_base& p) {
  return detail::location_setter(nullptr, p.end.get());
}

// ---------------------------------------------------------------------------------------------------------------- PLIO
namespace detail {
inline std::shared_ptr<plio_node> make_plio(std::string name, plio_type width, std::string file, bool is_input) {
  const auto node = std::make_shared<plio_node>();
  node->name = std::move(name);
  node->file = std::move(file);
  node->bits = width;
  node->is_input = is_input;
  node->end->kind = port_kind::plio;
  the_registry().plios.push_back(node);
  return node;
}
}  // namespace detail

class input_plio {
 public:
  port_list<output_port> out;
  std::shared_ptr<detail::plio_node> node;  // the emulation's own

  static input_plio create(std::string name, plio_type width, std::string file, double /*frequency*/ = 0) {
    input_plio p;
    p.node = detail::make_plio(std::move(name), width, std::move(file), true);
    p.out.add(p.node->end);
    return p;
  }
  static input_plio create(plio_type width, std::string file, double frequency = 0) {
    return create(file, width, file, frequency);
  }
};
class output_plio {
 public:
  port_list<input_port> in;
  std::shared_ptr<detail::plio_node> node;  // the emulation's own

  static output_plio create(std::string name, plio_type width, std::string file, double /*frequency*/ = 0) {
    output_plio p;
    p.node = detail::make_plio(std::move(name), width, std::move(file), false);
    p.in.add(p.node->end);
    return p;
  }
  static output_plio create(plio_type width, std::string file, double frequency = 0) {
    return create(file, width, file, frequency);
  }
};
template <class What>
detail::location_setter location(input_plio&) {
  return detail::location_setter();
}
template <class What>
detail::location_setter location(output_plio&) {
  return detail::location_setter();
}

// --------------------------------------------------------------------------------------------------------------- graph
class graph {
 public:
  graph() = default;
  graph(const graph&) = delete;
  graph& operator=(const graph&) = delete;
  virtual ~graph() = default;

  void init();
  void run() { run(-1); }
  void run(int iterations);
  void wait() { write_outputs(); }
  void wait(unsigned long long) { write_outputs(); }
  void end();
  void end(unsigned long long) { end(); }

  template <class T>
  void update(const port_base& p, T value) {
    set_parameter(p, &value, 1, detail::element_type_of<T>());
  }
  template <class T>
  void update(const port_base& p, const T* values, std::size_t size) {
    set_parameter(p, values, size, detail::element_type_of<T>());
  }
  template <class T>
  void read(const port_base& p, T& value) {
    get_parameter(p, &value, 1, detail::element_type_of<T>());
  }
  template <class T>
  void read(const port_base& p, T* values, std::size_t size) {
    get_parameter(p, values, size, detail::element_type_of<T>());
  }

 private:
  std::vector<std::shared_ptr<detail::kernel_node>> kernels_;
  std::vector<std::shared_ptr<detail::plio_node>> plios_;
  bool is_initialised_ = false;

  void set_parameter(const port_base& p, const void* from, std::size_t size, detail::element_type type);
  void get_parameter(const port_base& p, void* to, std::size_t size, detail::element_type type);
  void collect_outputs();
  void write_outputs();
  void write_report() const;
};

}  // namespace adf
