# Build type, language level, warnings, sanitizers, ccache.
option(CHIPMUNK_BUILD_TESTS "Build the test suite" ${PROJECT_IS_TOP_LEVEL})
option(CHIPMUNK_BUILD_BENCH "Build the benchmarks" ${PROJECT_IS_TOP_LEVEL})
option(CHIPMUNK_WARNINGS_AS_ERRORS "Treat warnings as errors" ON)
set(CHIPMUNK_CUDA AUTO CACHE STRING "CUDA backend: AUTO (where the toolkit is found), ON, OFF")
set_property(CACHE CHIPMUNK_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CHIPMUNK_CUDA_FLAGS
  -gencode=arch=compute_80,code=[sm_80,compute_80] -gencode=arch=compute_90a,code=sm_90a
  CACHE STRING "nvcc's flags that say which GPUs are built for: compute capability 8.x, Hopper, and newer ones by PTX")
set(CHIPMUNK_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

find_program(CHIPMUNK_CCACHE ccache)
if(CHIPMUNK_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CHIPMUNK_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CHIPMUNK_CCACHE})
endif()

add_library(chipmunk_options INTERFACE)
target_include_directories(chipmunk_options INTERFACE
  ${CMAKE_CURRENT_SOURCE_DIR}/src ${CMAKE_CURRENT_SOURCE_DIR}/include)
# GCC 12 reports -Wrestrict falsely for std::string's operator+ (GCC bug 105651).
target_compile_options(chipmunk_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${CHIPMUNK_WARNINGS_AS_ERRORS}>>:-Werror>)
target_compile_options(chipmunk_options INTERFACE
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${CHIPMUNK_WARNINGS_AS_ERRORS}>>:-Werror=all-warnings>)
if(CHIPMUNK_SANITIZE)
  target_compile_options(chipmunk_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${CHIPMUNK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(chipmunk_options INTERFACE -fsanitize=${CHIPMUNK_SANITIZE})
endif()
