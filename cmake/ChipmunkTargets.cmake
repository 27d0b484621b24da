# chipmunk_add_library(<name> <dir> [libraries...]): the static library chipmunk_<name> of all sources in one folder.
# A folder without sources yet becomes an interface library, so that the order of the layers stays readable.
function(chipmunk_add_library name dir)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${dir}/*.cpp ${CMAKE_CURRENT_SOURCE_DIR}/${dir}/*.cu)
  if(sources)
    add_library(chipmunk_${name} STATIC ${sources})
    target_link_libraries(chipmunk_${name} PUBLIC chipmunk_options ${ARGN})
  else()
    add_library(chipmunk_${name} INTERFACE)
    target_link_libraries(chipmunk_${name} INTERFACE chipmunk_options ${ARGN})
  endif()
endfunction()

# chipmunk_add_test(<name> <dir> [libraries...]): the program chipmunk_test_<name> of all tests in one folder. Tests with
# "Slow" in their name get the label slow, all others quick.
function(chipmunk_add_test name dir)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${dir}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(chipmunk_test_${name} ${sources})
  target_link_libraries(chipmunk_test_${name} PRIVATE ${ARGN} GTest::gtest_main)
  target_compile_definitions(chipmunk_test_${name} PRIVATE
    CHIPMUNK_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
    CHIPMUNK_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    CHIPMUNK_BINARY_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  # Several tests share the cores: a thread that waits must not spin.
  set(environment ENVIRONMENT OMP_WAIT_POLICY=passive)
  gtest_discover_tests(chipmunk_test_${name} DISCOVERY_MODE PRE_TEST TEST_FILTER "-*Slow*"
                       TEST_LIST ${name}_quick_tests PROPERTIES TIMEOUT 600 LABELS quick ${environment})
  gtest_discover_tests(chipmunk_test_${name} DISCOVERY_MODE PRE_TEST TEST_FILTER "*Slow*"
                       TEST_LIST ${name}_slow_tests PROPERTIES TIMEOUT 1200 LABELS slow ${environment})
endfunction()
