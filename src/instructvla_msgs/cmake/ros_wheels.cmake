# Build an interface package either against an installed ROS 2 or against ROS 2's Python wheels.
# With an installed ROS 2 both functions find nothing to do.

# Where no ROS 2 is sourced, take the prefix of the wheels: the environment that holds ament_package.
function(ros_wheels_find_prefix)
  string(REPLACE ":" ";" sourced_prefixes "$ENV{AMENT_PREFIX_PATH}")
  foreach(prefix IN LISTS sourced_prefixes)  # an overlay alone, without ament_cmake, is not a ROS 2
    if(EXISTS "${prefix}/share/ament_cmake")
      return()
    endif()
  endforeach()
  find_package(Python3 REQUIRED COMPONENTS Interpreter)  # an activated environment comes first
  set(python "${Python3_EXECUTABLE}")
  execute_process(
    COMMAND "${python}" -c
      "import ament_package, pathlib; print(pathlib.Path(ament_package.__file__).parents[4].as_posix())"
    OUTPUT_VARIABLE prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR
      "No ROS 2 found: AMENT_PREFIX_PATH names none and ${python} has no ament_package. "
      "Source a ROS 2 installation (source /opt/ros/jazzy/setup.bash), or activate the project's "
      "environment that holds the wheels (./test.sh makes it; source .venv/bin/activate).")
  endif()
  if("$ENV{AMENT_PREFIX_PATH}" STREQUAL "")
    set(ENV{AMENT_PREFIX_PATH} "${prefix}")
  else()
    set(ENV{AMENT_PREFIX_PATH} "$ENV{AMENT_PREFIX_PATH}:${prefix}")
  endif()
  list(PREPEND CMAKE_PREFIX_PATH "${prefix}")
  set(CMAKE_PREFIX_PATH "${CMAKE_PREFIX_PATH}" PARENT_SCOPE)
  message(STATUS "ROS 2 from wheels in ${prefix}")
endfunction()

# The wheels' exported targets name include directories of the machine that built them, which CMake
# refuses. Call after the find_package calls, before rosidl_generate_interfaces.
function(ros_wheels_mend_targets)
  # Services and actions bring these in later, by themselves: find them now, so that they are mended too.
  foreach(implicit IN ITEMS service_msgs action_msgs unique_identifier_msgs)
    find_package(${implicit} QUIET)
  endforeach()
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

# What an earlier build has installed of this stand-in would go on shadowing the genuine package.
function(ros_wheels_remove_installed_stand_in)
  set(prefix "${CMAKE_INSTALL_PREFIX}")
  if(EXISTS "${prefix}/share/${PROJECT_NAME}/stand_in.xml")
    file(GLOB installed
      "${prefix}/include/${PROJECT_NAME}" "${prefix}/share/${PROJECT_NAME}" "${prefix}/lib/lib${PROJECT_NAME}__*"
      "${prefix}/lib/python*/*-packages/${PROJECT_NAME}" "${prefix}/lib/python*/*-packages/${PROJECT_NAME}-*"
      "${prefix}/share/ament_index/resource_index/*/${PROJECT_NAME}")
    file(REMOVE_RECURSE ${installed})
    message(STATUS "${PROJECT_NAME}: the stand-in is removed from ${prefix}")
  endif()
endfunction()

# For stand-ins under colcon: sets `result` to true, and leaves nothing to build, where the genuine package
# of the same name is already on the CMake or ament prefix path. With pip, the set-up decides beforehand.
function(ros_wheels_stand_aside_for_genuine result)
  set(${result} FALSE PARENT_SCOPE)
  if(SKBUILD)
    return()
  endif()
  string(REPLACE ":" ";" prefixes "$ENV{AMENT_PREFIX_PATH}:$ENV{CMAKE_PREFIX_PATH}")
  foreach(prefix IN LISTS prefixes CMAKE_PREFIX_PATH)
    # A package that is installed later changes this folder's time, and so brings the build here again.
    if(IS_DIRECTORY "${prefix}/share" AND NOT EXISTS "${prefix}/share/${PROJECT_NAME}/stand_in.xml")
      set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${prefix}/share")
    endif()
    set(share "${prefix}/share/${PROJECT_NAME}")
    if(EXISTS "${share}/package.xml" AND NOT EXISTS "${share}/stand_in.xml")
      message(STATUS "${PROJECT_NAME}: the genuine package in ${prefix} serves; the stand-in is not built")
      ros_wheels_remove_installed_stand_in()
      set(${result} TRUE PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()
