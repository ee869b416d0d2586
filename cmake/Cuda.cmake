# How the library ntkfast_cuda is built (csrc/cuda/CMakeLists.txt): NTKFAST_CUDA_HOW, from the option NTKFAST_CUDA:
#   off       unavailable.cpp: the same symbols, which say that there is no CUDA
#   on        by nvcc
#   emulate   as plain C++, for tests: slow, and not for wheels
#   auto      on where nvcc is found, else off
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

if(NTKFAST_CUDA_HOW STREQUAL "on")
  # Hopper's own code, and PTX, of which the driver makes code for what is newer.
  set(CMAKE_CUDA_ARCHITECTURES "90-real;90-virtual" CACHE STRING "Architectures to compile for")
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # one that is there whatever is installed, and that loads the driver when asked
  enable_language(CUDA)
endif()
