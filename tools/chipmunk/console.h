#pragma once

#include <string_view>

/// What people read on stderr. Results go to stdout, by print_result().
namespace chipmunk::cli {

/// "chipmunk: error: ..." with one final newline; a message may list items on further lines.
void print_error(std::string_view message);
/// "chipmunk: notice: ...": something a person should know, printed even with --quiet.
void print_notice(std::string_view message);

/// One line, or several, of result on stdout, written out at once so that a reader behind a pipe sees it.
/// Throws kIo if that fails, e.g. because the disk behind a redirection is full.
void print_result(std::string_view text);

}  // namespace chipmunk::cli
