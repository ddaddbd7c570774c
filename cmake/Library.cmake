# cairn_library(NAME SOURCES a.c ... [HEADERS ...] [LINK ...])
# A static library `cairn_NAME`. Public headers (HEADERS) are each compiled alone by the
# `all_verify_interface_header_sets` target.
function(cairn_library name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;HEADERS;LINK")
	add_library(cairn_${name} STATIC ${arg_SOURCES})
	target_sources(cairn_${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${arg_HEADERS})
	target_link_libraries(cairn_${name} PUBLIC cairn_options ${arg_LINK})
endfunction()

# cairn_program(NAME SOURCES a.c ... LINK ...): an executable that is installed.
function(cairn_program name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
	add_executable(${name} ${arg_SOURCES})
	target_link_libraries(${name} PRIVATE cairn_options ${arg_LINK})
	set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
	install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()
