# The library ntkfast_cuda, in one of three ways, by the option NTKFAST_CUDA:
#   off       csrc/cuda/unavailable.cpp: the same symbols, which say that there is no CUDA
#   on        csrc/cuda by nvcc
#   emulate   csrc/cuda as plain C++, for tests: slow, and not for wheels
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

include(csrc/cuda/CMakeLists.txt)

if(NTKFAST_CUDA_HOW STREQUAL "off")
  add_library(ntkfast_cuda STATIC csrc/cuda/unavailable.cpp)
  target_link_libraries(ntkfast_cuda PUBLIC ntkfast_cpu)
elseif(NTKFAST_CUDA_HOW STREQUAL "emulate")
  add_library(ntkfast_cuda STATIC ${NTKFAST_CUDA_SOURCES} csrc/cuda/runtime_emulation.cpp)
  target_compile_definitions(ntkfast_cuda PUBLIC NTKFAST_EMULATION)
  target_compile_options(ntkfast_cuda PRIVATE ${NTKFAST_FLOAT_FLAGS})
  target_link_libraries(ntkfast_cuda PUBLIC ntkfast_cpu)
else()
  # Hopper's own code, and PTX, of which the driver makes code for what is newer.
  set(CMAKE_CUDA_ARCHITECTURES "90-real;90-virtual" CACHE STRING "Architectures to compile for")
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # one that is there whatever is installed, and that loads the driver when asked
  enable_language(CUDA)

  set(sources ${NTKFAST_CUDA_SOURCES} csrc/cuda/runtime_cuda.cpp)
  set_source_files_properties(${sources} PROPERTIES LANGUAGE CUDA)
  add_library(ntkfast_cuda STATIC ${sources})
  target_link_libraries(ntkfast_cuda PUBLIC ntkfast_cpu)
  set_target_properties(ntkfast_cuda PROPERTIES OPTIMIZE_DEPENDENCIES ON)
  list(JOIN CMAKE_CUDA_ARCHITECTURES " " architectures)
  target_compile_definitions(ntkfast_cuda PRIVATE NTKFAST_CUDA_ARCHITECTURES="${architectures}")
  # The host's part with the warnings of all other code, and with OpenMP, or headers shared with it would mean two things.
  set(host_flags ${NTKFAST_WARNINGS})
  if(OpenMP_CXX_FOUND)
    list(APPEND host_flags ${OpenMP_CXX_FLAGS})
  endif()
  list(TRANSFORM host_flags PREPEND -Xcompiler=)
  # The device's part.  Each float flag has its reason:
  #   -ftz=true          denormals count as zero, as in the CPU engine: squared differences underflow on nearly flat images
  #   -prec-sqrt=false   the approximate square root of float, one instruction: its relative error is at most 2^-23, that of
  #                      one rounding more (double keeps the exact one)
  # Not -use_fast_math: divisions, and what else is rarely needed, stay exact.
  target_compile_options(ntkfast_cuda PRIVATE ${host_flags} -ftz=true -prec-sqrt=false -Xptxas=-v)
  if(NTKFAST_WERROR)
    target_compile_options(ntkfast_cuda PRIVATE -Werror=cross-execution-space-call,reorder)
  endif()

  # What ptxas says of registers, spills, stack and shared memory is kept beside each object; a build with NTKFAST_WERROR
  # prints it as a table, and fails where a kernel spills.
  find_package(Python COMPONENTS Interpreter)
  if(Python_Interpreter_FOUND)
    set(report ${PROJECT_SOURCE_DIR}/cmake/ptxas_report.py)
    set_target_properties(ntkfast_cuda PROPERTIES CUDA_COMPILER_LAUNCHER "${Python_EXECUTABLE};${report};run")
    if(NTKFAST_WERROR)
      add_custom_command(TARGET ntkfast_cuda POST_BUILD COMMAND_EXPAND_LISTS
        COMMAND "${Python_EXECUTABLE}" "${report}" table "$<TARGET_OBJECTS:ntkfast_cuda>")
    endif()
  endif()
endif()
