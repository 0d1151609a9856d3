# Sets `result` to x86_64 or to other: what the objects are for, which decides the kernels' flags.
#
# CMAKE_SYSTEM_PROCESSOR is the host's on macOS whatever is built for, and a wheel for Apple's CPUs may come from an
# x86-64 machine or the other way round; CMAKE_OSX_ARCHITECTURES says which. With two in it every object would be
# compiled for both with the same flags, which those of one do not bear.
function(rledit_target_architecture result)
  set(architecture "${CMAKE_SYSTEM_PROCESSOR}")
  if(APPLE AND CMAKE_OSX_ARCHITECTURES)
    list(LENGTH CMAKE_OSX_ARCHITECTURES count)
    if(count GREATER 1)
      message(FATAL_ERROR "CMAKE_OSX_ARCHITECTURES: expected one architecture, got '${CMAKE_OSX_ARCHITECTURES}'. "
        "Build a wheel for each (ARCHFLAGS='-arch arm64', ARCHFLAGS='-arch x86_64'); delocate-merge makes one of "
        "the two.")
    endif()
    set(architecture "${CMAKE_OSX_ARCHITECTURES}")
  endif()
  if(architecture MATCHES "^(x86_64|x86_64h|AMD64|amd64)$") # x86_64h: Apple's name from Haswell on
    set(${result} x86_64 PARENT_SCOPE)
  else()
    set(${result} other PARENT_SCOPE)
  endif()
endfunction()
