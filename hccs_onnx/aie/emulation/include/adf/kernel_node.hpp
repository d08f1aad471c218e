// A kernel as the runner sees it: its ends, and how to call the function with what waits there.
#pragma once

#include <string>
#include <tuple>
#include <utility>

#include "../emulation/counters.hpp"
#include "../emulation/guarded_memory.hpp"
#include "buffer.hpp"
#include "endpoint.hpp"
#include "stream.hpp"

namespace adf::detail {

// ------------------------------------------------------------------------ what each kind of parameter needs in a call
// argument<P> is made from the end before the call; value() is passed; finish() is called afterwards.
template <class P>
struct argument;

template <class T, class... Config>
struct argument<input_buffer<T, Config...>&> {
  static constexpr direction way = direction::in;
  static void describe(endpoint& end) {
    end.kind = port_kind::buffer;
    end.type = element_type_of<T>();
    end.samples = extent_of<Config...>;
  }
  explicit argument(endpoint& end)
      : memory(end.buffer_bytes()), buffer(reinterpret_cast<T*>(memory.data()), memory.size() / sizeof(T)) {
    end.queue.pop(memory.data(), memory.size());
  }
  input_buffer<T, Config...>& value() { return buffer; }
  void finish(endpoint&) { emulation::require(memory.is_intact(), "a kernel wrote outside of its input buffer"); }

  emulation::guarded_memory memory;
  input_buffer<T, Config...> buffer;
};

template <class T, class... Config>
struct argument<output_buffer<T, Config...>&> {
  static constexpr direction way = direction::out;
  static void describe(endpoint& end) {
    end.kind = port_kind::buffer;
    end.type = element_type_of<T>();
    end.samples = extent_of<Config...>;
  }
  explicit argument(endpoint& end)
      : memory(end.buffer_bytes()), buffer(reinterpret_cast<T*>(memory.data()), memory.size() / sizeof(T)) {}
  output_buffer<T, Config...>& value() { return buffer; }
  void finish(endpoint& end) {
    emulation::require(memory.is_intact(), "a kernel wrote outside of its output buffer");
    end.produce(memory.data(), memory.size());
  }

  emulation::guarded_memory memory;
  output_buffer<T, Config...> buffer;
};

template <class T>
struct argument<input_stream<T>*> {
  static constexpr direction way = direction::in;
  static void describe(endpoint& end) {
    end.kind = port_kind::stream;
    end.type = element_type_of<T>();
  }
  explicit argument(endpoint& end) : stream(end) {}
  input_stream<T>* value() { return &stream; }
  void finish(endpoint&) {}
  input_stream<T> stream;
};

template <class T>
struct argument<output_stream<T>*> {
  static constexpr direction way = direction::out;
  static void describe(endpoint& end) {
    end.kind = port_kind::stream;
    end.type = element_type_of<T>();
  }
  explicit argument(endpoint& end) : stream(end) {}
  output_stream<T>* value() { return &stream; }
  void finish(endpoint&) {}
  output_stream<T> stream;
};

// Run-time parameters lie where their elements may lie: nothing promises that an array can be loaded as a vector.
template <class T, std::size_t N>
struct parameter_copy {
  explicit parameter_copy(const endpoint& end) : memory((N + 1) * sizeof(T)) {
    std::memcpy(data(), end.parameter.data(), N * sizeof(T));
  }
  T* data() { return reinterpret_cast<T*>(memory.data()) + 1; }
  emulation::guarded_memory memory;
};
template <class T, std::size_t N>
void describe_parameter(endpoint& end) {
  end.kind = port_kind::parameter;
  end.type = element_type_of<T>();
  end.parameter.assign(N * sizeof(T), 0);
}

template <class T, std::size_t N>
struct argument<const T (&)[N]> {
  using array = const T[N];
  static constexpr direction way = direction::in;
  static void describe(endpoint& end) { describe_parameter<T, N>(end); }
  explicit argument(endpoint& end) : copy(end) {}
  array& value() { return *reinterpret_cast<array*>(copy.data()); }
  void finish(endpoint&) {}
  parameter_copy<T, N> copy;
};
template <class T, std::size_t N>
struct argument<T (&)[N]> {
  using array = T[N];
  static constexpr direction way = direction::inout;
  static void describe(endpoint& end) { describe_parameter<T, N>(end); }
  explicit argument(endpoint& end) : copy(end) {}
  array& value() { return *reinterpret_cast<array*>(copy.data()); }
  void finish(endpoint& end) {
    emulation::require(copy.memory.is_intact(), "a kernel wrote outside of an array parameter");
    std::memcpy(end.parameter.data(), copy.data(), N * sizeof(T));
  }
  parameter_copy<T, N> copy;
};
template <class T>
  requires(std::is_arithmetic_v<T>)
struct argument<T> {
  static constexpr direction way = direction::in;
  static void describe(endpoint& end) { describe_parameter<T, 1>(end); }
  explicit argument(endpoint& end) { std::memcpy(&copy, end.parameter.data(), sizeof copy); }
  T value() { return copy; }
  void finish(endpoint&) {}
  T copy;
};
template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_const_v<T>)
struct argument<T&> {
  static constexpr direction way = direction::inout;
  static void describe(endpoint& end) { describe_parameter<T, 1>(end); }
  explicit argument(endpoint& end) { std::memcpy(&copy, end.parameter.data(), sizeof copy); }
  T& value() { return copy; }
  void finish(endpoint& end) { std::memcpy(end.parameter.data(), &copy, sizeof copy); }
  T copy;
};

// -------------------------------------------------------------------------------------------------------------- nodes
struct kernel_node {
  std::vector<std::shared_ptr<endpoint>> ends;  // in the order of the function's parameters
  std::vector<direction> ways;
  std::shared_ptr<void> object;  // of a kernel class
  emulation::control_registers registers = emulation::random_registers(emulation::state().random);
  emulation::operation_counts counts;  // of all runs so far
  unsigned long runs = 0;

  std::string source;
  std::vector<std::string> headers;
  double runtime_ratio = 0;
  unsigned repetitions = 1;
  unsigned stack_bytes = 0, heap_bytes = 0;
  int column = -1, row = -1;  // -1: not placed

  virtual ~kernel_node() = default;
  virtual void call() = 0;

  // Each core has control registers of its own, so a mode that one kernel sets is not seen by the next; what f does is
  // counted for this kernel and for the thread.
  template <class F>
  void on_core(F f) {
    struct visit {
      explicit visit(kernel_node& n) : node(n) { std::swap(emulation::state().registers, node.registers); }
      visit(const visit&) = delete;
      visit& operator=(const visit&) = delete;
      ~visit() {
        std::swap(emulation::state().registers, node.registers);
        node.counts += emulation::counters();
        emulation::counters() += before;
      }
      kernel_node& node;
      emulation::operation_counts before = std::exchange(emulation::counters(), {});
    } const here(*this);
    f();
  }

  bool has_input() const {
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ways[i] == direction::in && ends[i]->kind != port_kind::parameter) return true;
    }
    return false;
  }
  bool is_ready() const {
    for (std::size_t i = 0; i < ends.size(); ++i) {
      const endpoint& end = *ends[i];
      if (ways[i] != direction::in) continue;
      if (end.kind == port_kind::buffer && end.queue.size() < end.buffer_bytes()) return false;
      if (end.kind == port_kind::stream && end.queue.size() == 0) return false;
    }
    return true;
  }

  void fire() {
    for (std::size_t i = 0; i < ends.size(); ++i) {
      endpoint& end = *ends[i];
      if (end.kind != port_kind::parameter || ways[i] != direction::in) continue;
      if (!end.is_parameter_set) {
        emulation::fail("%s: run-time parameter %zu has no value: call graph.update() before run()", name(), i);
      }
      if (!end.is_async) end.is_parameter_set = false;  // a synchronous parameter serves one run
    }
    try {
      on_core([this] { call(); });
    } catch (const emulation::error& e) {
      emulation::fail("%s on tile (%d, %d), run %lu: %s", name(), column, row, runs, e.reason());
    }
    ++runs;
  }

  const char* name() const { return source.empty() ? "kernel" : source.c_str(); }

 protected:
  template <class... Parameters>
  void describe() {
    ((ends.push_back(std::make_shared<endpoint>()), argument<Parameters>::describe(*ends.back()),
      ways.push_back(argument<Parameters>::way)),
     ...);
  }
  template <class F, class... Parameters, std::size_t... I>
  void call_with(F f, std::tuple<Parameters...>*, std::index_sequence<I...>) {
    std::tuple<argument<Parameters>...> arguments{*ends[I]...};
    f(std::get<I>(arguments).value()...);
    (std::get<I>(arguments).finish(*ends[I]), ...);
  }
};

template <class... Parameters>
struct function_node final : kernel_node {
  using function = void (*)(Parameters...);
  explicit function_node(function f) : f_(f) { describe<Parameters...>(); }
  void call() override {
    call_with(f_, static_cast<std::tuple<Parameters...>*>(nullptr), std::index_sequence_for<Parameters...>());
  }

 private:
  function f_;
};

template <class C, class... Parameters>
struct object_node final : kernel_node {
  using member = void (C::*)(Parameters...);
  explicit object_node(member run) : run_(run) { describe<Parameters...>(); }
  void call() override {
    const auto run = [this](auto&&... values) -> void {
      (static_cast<C*>(object.get())->*run_)(std::forward<decltype(values)>(values)...);
    };
    call_with(run, static_cast<std::tuple<Parameters...>*>(nullptr), std::index_sequence_for<Parameters...>());
  }

 private:
  member run_;
};

// REGISTER_FUNCTION leaves the node here for create_object.
inline std::shared_ptr<kernel_node>& registered_node() {
  static thread_local std::shared_ptr<kernel_node> node;
  return node;
}
template <class C, class... Parameters>
void register_run(void (C::*run)(Parameters...)) {
  registered_node() = std::make_shared<object_node<C, Parameters...>>(run);
}

}  // namespace adf::detail

#define REGISTER_FUNCTION(function) ::adf::detail::register_run(&function)
