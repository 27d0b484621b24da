#include "interrupt.h"

#include <unistd.h>

#include <csignal>
#include <string_view>

namespace chipmunk::cli {
namespace {

// A signal handler reaches nothing but globals.
volatile std::sig_atomic_t was_interrupted = 0;

void on_signal(int) {
  was_interrupted = 1;
  constexpr std::string_view kMessage = "\nchipmunk: stopping after this step; Ctrl-C again ends at once\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kMessage.data(), kMessage.size());
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  // After the first signal the system's default is back, which ends the program.
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction previous{};
    sigaction(signal, nullptr, &previous);
    // A program started with nohup or in the background keeps ignoring the signal.
    if (previous.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

bool interrupted() { return was_interrupted != 0; }

}  // namespace chipmunk::cli
