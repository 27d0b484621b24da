// Mapped files, and files that appear whole or not at all.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/mapped_file.h"
#include "io_test_util.h"

namespace chipmunk {
namespace {

using test::expect_error;
using test::read_all;
using test::TempFolder;

namespace fs = std::filesystem;

TEST(MappedFile, ShowsTheBytes) {
  const TempFolder folder;
  std::shared_ptr<Storage> storage;
  {
    const auto file = std::make_shared<const MappedFile>(folder.add("f", "hello"));
    EXPECT_EQ(file->size(), 5u);
    EXPECT_EQ(file->path(), folder / "f");
    for (const auto pattern :
         {AccessPattern::kSequential, AccessPattern::kRandom, AccessPattern::kWillNeed, AccessPattern::kNormal}) {
      file->advise(pattern);
    }
    storage = as_storage(file);
  }
  EXPECT_EQ(std::string_view(static_cast<const char*>(storage->data()), storage->bytes()), "hello");
}

TEST(MappedFile, BadPaths) {
  const TempFolder folder;
  const auto open = [](const fs::path& path) { return [path] { MappedFile file(path); }; };
  expect_error(ErrorCode::kNotFound, {"gone", "No such file"}, open(folder / "gone"));
  expect_error(ErrorCode::kNotFound, {"f/below"}, open(folder.add("f", "x") / "below"));
  expect_error(ErrorCode::kInvalidFile, {"found a folder"}, open(folder.path()));
  expect_error(ErrorCode::kInvalidFile, {"empty"}, open(folder.add("nothing", "")));
  expect_error(ErrorCode::kInvalidFile, {"not a regular file"}, open("/dev/null"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::kInvalidFile, {"pipe"}, open(folder / "pipe"));
}

TEST(MappedFile, WithoutPermission) {
  if (::geteuid() == 0) GTEST_SKIP() << "the superuser may read everything";
  const TempFolder folder;
  const fs::path path = folder.add("secret", "x");
  fs::permissions(path, fs::perms::none);
  expect_error(ErrorCode::kIo, {"secret", "Permission denied"}, [&] { MappedFile file(path); });
}

TEST(AtomicFile, AppearsWithItsContentOnCommit) {
  const TempFolder folder;
  const std::string large(200000, 'x');
  {
    AtomicFile file(folder / "out");
    file.write("head ");
    file.write(large);
    file.write(" tail");
    EXPECT_FALSE(fs::exists(folder / "out"));
    EXPECT_EQ(folder.list().size(), 1u) << "the temporary file lies beside it";
    file.commit();
    EXPECT_EQ(folder.list(), std::vector<std::string>{"out"});
  }
  EXPECT_EQ(read_all(folder / "out"), "head " + large + " tail");
}

TEST(AtomicFile, WithoutCommitNothingChanges) {
  const TempFolder folder;
  folder.add("out", "old");
  {
    AtomicFile file(folder / "out");
    file.write(std::string(200000, 'x'));
  }
  EXPECT_EQ(folder.list(), std::vector<std::string>{"out"});
  EXPECT_EQ(read_all(folder / "out"), "old");
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const TempFolder folder;
  AtomicFile first(folder / "out");
  AtomicFile second(folder / "out");
  first.write("first");
  second.write("second");
  first.commit();
  EXPECT_EQ(read_all(folder / "out"), "first");
  second.commit();
  EXPECT_EQ(read_all(folder / "out"), "second");
  EXPECT_EQ(folder.list(), std::vector<std::string>{"out"});
}

TEST(AtomicFile, KeepsALinkAndReplacesItsTarget) {
  const TempFolder folder;
  const fs::path target = folder.add("there/target", "old");
  fs::create_symlink(target, folder / "link");
  write_file(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_all(target), "new");
}

TEST(AtomicFile, RelativeAndLongNames) {
  const TempFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  const std::string longest(255, 'n');
  write_file("here", "x");
  write_file(longest, "y");
  fs::current_path(before);
  EXPECT_EQ(folder.list(), (std::vector<std::string>{"here", longest}));
}

TEST(AtomicFile, HasTheUsualPermissions) {
  const TempFolder folder;
  write_file(folder / "out", "x");
  folder.add("reference", "x");
  EXPECT_EQ(fs::status(folder / "out").permissions(), fs::status(folder / "reference").permissions());
}

TEST(AtomicFile, UnwritablePlacesAreFoundAtOnce) {
  const TempFolder folder;
  expect_error(ErrorCode::kIo, {"nowhere/out", "No such file"}, [&] { AtomicFile file(folder / "nowhere/out"); });
  expect_error(ErrorCode::kIo, {"Is a directory"}, [&] { AtomicFile file(folder.path()); });
  folder.add("f", "x");
  expect_error(ErrorCode::kIo, {"f/out", "Not a directory"}, [&] { AtomicFile file(folder / "f/out"); });
  EXPECT_EQ(folder.list(), std::vector<std::string>{"f"});
}

TEST(AtomicFile, RespectsWriteProtection) {
  if (::geteuid() == 0) GTEST_SKIP() << "the superuser may write everything";
  const TempFolder folder;
  const fs::path path = folder.add("out", "old");
  fs::permissions(path, fs::perms::owner_read);
  expect_error(ErrorCode::kIo, {"Permission denied"}, [&] { AtomicFile file(path); });
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec);
  expect_error(ErrorCode::kIo, {"Permission denied"}, [&] { AtomicFile file(folder / "new"); });
  fs::permissions(folder.path(), fs::perms::owner_all);
}

TEST(AtomicFile, FullDisk) {
  // Small enough to be buffered: the failure shows at commit.
  expect_error(ErrorCode::kIo, {"/dev/full", "No space left"}, [] { write_file("/dev/full", "x"); });
  expect_error(ErrorCode::kIo, {"/dev/full", "No space left"}, [] {
    AtomicFile file("/dev/full");
    file.write(std::string(200000, 'x'));
  });
}

TEST(AtomicFile, ADeviceIsWrittenToAndStays) {
  EXPECT_NO_THROW(write_file("/dev/null", "x"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(AtomicFile, NothingCanBeWrittenAfterTheCommit) {
  const TempFolder folder;
  AtomicFile file(folder / "out");
  file.commit();
  expect_error(ErrorCode::kInternal, {"closed"}, [&] { file.write("x"); });
  expect_error(ErrorCode::kInternal, {"closed"}, [&] { file.commit(); });
  EXPECT_EQ(read_all(folder / "out"), "");
}

TEST(ReadFile, ContentAndLimits) {
  const TempFolder folder;
  const std::string content(150000, 'y');
  const fs::path path = folder.add("f", content);
  EXPECT_EQ(read_file(path, content.size()), content);
  expect_error(ErrorCode::kInvalidFile, {"larger than 10 bytes"}, [&] { read_file(path, 10); });
  expect_error(ErrorCode::kNotFound, {"gone"}, [&] { read_file(folder / "gone", 10); });
  expect_error(ErrorCode::kInvalidFile, {"folder"}, [&] { read_file(folder.path(), 10); });
}

}  // namespace
}  // namespace chipmunk
