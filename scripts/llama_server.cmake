# Of llama.cpp's source in the llama-cpp-python sdist only what we use is built: llama-server, the
# tools below, and not the library for Python. CMake includes this after the sdist's project(),
# whose own build is off (LLAMA_BUILD); see build_llama_server.
set(BUILD_SHARED_LIBS ON)
set(LLAMA_BUILD_COMMON ON)
set(llama_cpp ${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp)
add_subdirectory(${llama_cpp})

# The tools' folders expect to be below that one.
foreach(name LLAMA_VERSION_BASE LLAMA_VERSION_MAJOR)
  get_directory_property(${name} DIRECTORY ${llama_cpp} DEFINITION ${name})
endforeach()
set(PROJECT_SOURCE_DIR ${llama_cpp})
foreach(tool ui mtmd server fit-params gguf-split llama-bench)
  add_subdirectory(${llama_cpp}/tools/${tool})
endforeach()

# Most of the time goes into the headers and templates that the sources have in common. So several
# of them are compiled as one; those named here cannot be.
function(compile_together target at_once)
  get_target_property(folder ${target} SOURCE_DIR)
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources EXCLUDE REGEX "^/")
  list(TRANSFORM sources PREPEND ${folder}/)
  list(TRANSFORM ARGN PREPEND ${folder}/ OUTPUT_VARIABLE alone)
  set_source_files_properties(
    ${sources} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION OFF)
  set_source_files_properties(
    ${alone} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set_target_properties(
    ${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${at_once})
endfunction()

compile_together(llama 8)
compile_together(llama-common 8 json.cpp)
compile_together(mtmd 16 mtmd-helper.cpp mtmd-helper-gen.cpp)
compile_together(server-context 3)
compile_together(llama-server-impl 3)
