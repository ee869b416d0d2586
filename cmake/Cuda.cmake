# The library ntkfast_cuda, in one of three ways, by the option NTKFAST_CUDA:
#   off       csrc/cuda/unavailable.cpp: the same symbols, which say that there is no CUDA
#   on        csrc/cuda by nvcc
#   emulate   csrc/cuda as plain C++, for tests: slow, and not for wheels
#   auto      on where nvcc is found, else off
set(NTKFAST_CUDA auto CACHE STRING "CUDA engine: auto, on, off, or emulate (tests)")
set_property(CACHE NTKFAST_CUDA PROPERTY STRINGS auto on off emulate)

set(NTKFAST_CUDA_HOW "${NTKFAST_CUDA}")
if(NTKFAST_CUDA_HOW STREQUAL "auto" OR NTKFAST_CUDA_HOW STREQUAL "on")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(NTKFAST_CUDA_HOW on)
  elseif(NTKFAST_CUDA_HOW STREQUAL "on")
    message(FATAL_ERROR "NTKFAST_CUDA=on needs nvcc, and none works here: install the CUDA toolkit and put nvcc on the "
                        "PATH, or name it with -DCMAKE_CUDA_COMPILER=/path/to/nvcc")
  else()
    set(NTKFAST_CUDA_HOW off)
  endif()
elseif(NOT NTKFAST_CUDA_HOW STREQUAL "off" AND NOT NTKFAST_CUDA_HOW STREQUAL "emulate")
  message(FATAL_ERROR "NTKFAST_CUDA must be auto, on, off or emulate, got '${NTKFAST_CUDA}'")
endif()
message(STATUS "ntkfast: CUDA ${NTKFAST_CUDA_HOW}")

if(NTKFAST_CUDA_HOW STREQUAL "off")
  add_library(ntkfast_cuda STATIC csrc/cuda/unavailable.cpp)
  target_link_libraries(ntkfast_cuda PUBLIC ntkfast_cpu)
  return()
endif()

if(NTKFAST_CUDA_HOW STREQUAL "emulate")
  add_subdirectory(csrc/cuda)
  add_library(ntkfast_cuda ALIAS ntkfast_cuda_emulation)
  return()
endif()

# Hopper's own code, and PTX, of which the driver makes code for what is newer.
set(CMAKE_CUDA_ARCHITECTURES "90-real;90-virtual" CACHE STRING "Architectures to compile for")
enable_language(CUDA)
add_subdirectory(csrc/cuda)
