# How the CPU engine makes its threads (csrc/cpu/threads.h): the target ntkfast_threads, from the option NTKFAST_OPENMP:
#   on     OpenMP, whose threads wait for the next call
#   off    std::thread, made anew for each call: the same results, and slower where calls are short
#   auto   on where OpenMP is found, else off, with a warning
# `ntkfast info` says which it is.  Apple's clang has OpenMP once libomp is installed: OpenMP_ROOT tells CMake where.
set(NTKFAST_OPENMP auto CACHE STRING "Threads by OpenMP: auto, on, or off (std::thread)")
set_property(CACHE NTKFAST_OPENMP PROPERTY STRINGS auto on off)
if(NOT NTKFAST_OPENMP MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "NTKFAST_OPENMP must be auto, on or off, got '${NTKFAST_OPENMP}'")
endif()

add_library(ntkfast_threads INTERFACE)
if(NOT NTKFAST_OPENMP STREQUAL "off")
  find_package(OpenMP COMPONENTS CXX)
endif()
if(OpenMP_CXX_FOUND)
  target_link_libraries(ntkfast_threads INTERFACE OpenMP::OpenMP_CXX)
else()
  set(remedy "On macOS: brew install libomp, and OpenMP_ROOT=\"$(brew --prefix libomp)\" in the environment of pip or "
             "CMake.  On Debian with clang: apt install libomp-dev.")
  if(NTKFAST_OPENMP STREQUAL "on")
    message(FATAL_ERROR "NTKFAST_OPENMP=on needs OpenMP, and ${CMAKE_CXX_COMPILER} has none.  " ${remedy})
  elseif(NTKFAST_OPENMP STREQUAL "auto")
    message(WARNING "${CMAKE_CXX_COMPILER} has no OpenMP: threads are made by std::thread, anew for each call.  " ${remedy}
                    "  NTKFAST_OPENMP=off builds like this without a warning.")
  endif()
  find_package(Threads REQUIRED)
  target_link_libraries(ntkfast_threads INTERFACE Threads::Threads)
endif()
