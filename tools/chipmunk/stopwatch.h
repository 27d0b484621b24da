#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/context.h"

namespace chipmunk::cli {

/// The upper one of two. values: at least one.
double median(std::vector<double> values);

/// Times bodies in rounds, so that every one of them sees the same clock and temperature.
class Stopwatch {
 public:
  /// The context outlives this.
  Stopwatch(const Context& context, int rounds) : context_(context), rounds_(rounds) {}

  /// Names are unique. A body may run several times in a row.
  void add(std::string name, std::function<void()> body);
  /// A matmul of 8192 x 8192 x 8192 in every round: what the machine's clock allows at the time.
  void add_clock();
  void run();

  /// Sorted milliseconds of one run each.
  const std::vector<double>& of(const std::string& name) const;
  double median(const std::string& name) const { return of(name)[of(name).size() / 2]; }
  /// Of the matmul; 0 without add_clock().
  double clock_tflops() const;

 private:
  struct Entry {
    std::string name;
    std::function<void()> body;
    std::vector<double> ms;
    int repeats;
  };

  double time(const Entry& entry, int repeats) const;

  const Context& context_;
  int rounds_;
  bool with_clock_ = false;
  std::vector<Entry> entries_;
};

}  // namespace chipmunk::cli
