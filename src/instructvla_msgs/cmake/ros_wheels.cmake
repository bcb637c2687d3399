# Build an interface package either against an installed ROS 2 or against ROS 2's Python wheels.
# With an installed ROS 2 both functions find nothing to do.

# Where no ROS 2 is sourced, take the prefix of the wheels: the environment that holds ament_package.
function(ros_wheels_find_prefix)
  if(NOT "$ENV{AMENT_PREFIX_PATH}" STREQUAL "")
    return()
  endif()
  set(python "${Python3_EXECUTABLE}")
  if(NOT python)
    set(python "${Python_EXECUTABLE}")
  endif()
  if(NOT python)
    find_program(python NAMES python3 python REQUIRED)
  endif()
  execute_process(
    COMMAND "${python}" -c
      "import ament_package, pathlib; print(pathlib.Path(ament_package.__file__).parents[4].as_posix())"
    OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR
      "No ROS 2 found: AMENT_PREFIX_PATH is empty and ${python} has no ament_package. "
      "Source a ROS 2 installation (source /opt/ros/jazzy/setup.bash), or install the wheels "
      "listed in requirements/ros-build.txt.")
  endif()
  set(ENV{AMENT_PREFIX_PATH} "${prefix}")
  list(PREPEND CMAKE_PREFIX_PATH "${prefix}")
  set(CMAKE_PREFIX_PATH "${CMAKE_PREFIX_PATH}" PARENT_SCOPE)
  message(STATUS "ROS 2 from wheels in ${prefix}")
endfunction()

# The wheels' exported targets name include directories of the machine that built them, which CMake
# refuses. Call after the find_package calls, before rosidl_generate_interfaces.
function(ros_wheels_mend_targets)
  get_directory_property(targets IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(present "")
    foreach(directory IN LISTS directories)
      if(directory MATCHES "\\$<" OR IS_DIRECTORY "${directory}")
        list(APPEND present "${directory}")
      endif()
    endforeach()
    if(NOT "${present}" STREQUAL "${directories}")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${present}")
    endif()
  endforeach()
endfunction()
