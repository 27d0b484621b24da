#include "program.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <stdexcept>

namespace chipmunk::testing {
namespace {

using Clock = std::chrono::steady_clock;

/// A pipe whose ends close with it.
struct Pipe {
  int ends[2];
  /// terminal: what is read at one end was written to a terminal at the other.
  explicit Pipe(bool terminal) {
    const int failed = terminal ? ::openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr) : ::pipe2(ends, O_CLOEXEC);
    if (failed != 0) throw std::runtime_error("cannot create a pipe");
    for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  }
  ~Pipe() {
    ::close(ends[0]);
    close_write();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_write() {
    if (ends[1] >= 0) ::close(ends[1]);
    ends[1] = -1;
  }
};

/// In the child: makes `file` one of the standard streams.
void redirect(int file, int stream) {
  if (file < 0 || ::dup2(file, stream) < 0) ::_exit(126);
}

/// In the child, between fork and exec.
void prepare_child(const ProgramOptions& options, const Pipe& out, const Pipe& err) {
  redirect(::open("/dev/null", O_RDONLY), STDIN_FILENO);
  const int out_file = options.stdout_path.empty() ? out.ends[1] : ::open(options.stdout_path.c_str(), O_WRONLY);
  redirect(out_file, STDOUT_FILENO);
  redirect(err.ends[1], STDERR_FILENO);
  if (!options.working_folder.empty() && ::chdir(options.working_folder.c_str()) != 0) ::_exit(126);
  if (options.file_size_limit) {
    const rlimit limit{*options.file_size_limit, *options.file_size_limit};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  // A test runner in the background may ignore these; the program under test must not inherit that.
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

/// Appends what there is; false at the end of the stream.
bool drain(int file, std::string* text) {
  char block[4096];
  const ssize_t count = ::read(file, block, sizeof(block));
  if (count <= 0) return false;
  text->append(block, static_cast<size_t>(count));
  return true;
}

}  // namespace

ProgramResult run_chipmunk(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  std::vector<std::string> words = {CHIPMUNK_BINARY_DIR "/chipmunk"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  Pipe out(false), err(options.terminal);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    prepare_child(options, out, err);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  out.close_write();
  err.close_write();

  ProgramResult result;
  size_t signals_sent = 0;
  pollfd files[2] = {{out.ends[0], POLLIN, 0}, {err.ends[0], POLLIN, 0}};
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(options.timeout_seconds);
  while (files[0].fd >= 0 || files[1].fd >= 0) {
    if (Clock::now() > deadline) {
      result.timed_out = true;
      ::kill(child, SIGKILL);
      break;
    }
    if (::poll(files, 2, 100) <= 0) continue;
    if (files[0].revents != 0 && !drain(files[0].fd, &result.out)) files[0].fd = -1;
    if (files[1].revents != 0 && !drain(files[1].fd, &result.err)) files[1].fd = -1;
    if (signals_sent < options.signals.size() &&
        result.err.find(options.signals[signals_sent].after) != std::string::npos) {
      ::kill(child, options.signals[signals_sent++].signal);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

}  // namespace chipmunk::testing
