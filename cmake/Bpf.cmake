# bpf_skeleton(NAME SOURCE): compiles SOURCE (libbpf's C for BPF, UAPI headers only) and makes NAME.skel.h.
# An interface target NAME_skel gives its folder and libbpf; `#include "NAME.skel.h"`. The build machine's kernel plays no part.
find_program(CAIRN_BPF_CLANG NAMES clang clang-19 clang-14)
find_program(CAIRN_BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin)
if(NOT CAIRN_BPF_CLANG)
	message(FATAL_ERROR "clang was not found: install the Debian package clang (scripts/install-deps does)")
endif()
if(NOT CAIRN_BPFTOOL)
	message(FATAL_ERROR "bpftool was not found: install the Debian package bpftool (scripts/install-deps does)")
endif()
cairn_pkg(BPF "libbpf>=1.1" libbpf-dev)

function(bpf_skeleton name source)
	set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o)
	set(header ${CMAKE_CURRENT_BINARY_DIR}/${name}.skel.h)
	# UAPI headers choose by the target's own macros, and BPF's are none of a machine's: the registers are x86-64's.
	add_custom_command(OUTPUT ${object}
		COMMAND ${CAIRN_BPF_CLANG} -target bpf -D__x86_64__ -g -O2 -Wall -Werror -I${PROJECT_SOURCE_DIR}
			-I/usr/include/${CMAKE_LIBRARY_ARCHITECTURE} -MD -MT ${object} -MF ${object}.d -c ${source} -o ${object}
		DEPENDS ${source} DEPFILE ${object}.d VERBATIM COMMENT "Building BPF object ${name}.bpf.o")
	add_custom_command(OUTPUT ${header}
		COMMAND sh -c "\"$1\" gen skeleton \"$2\" name \"$3\" > \"$4.tmp\" && mv \"$4.tmp\" \"$4\""
			gen ${CAIRN_BPFTOOL} ${object} ${name}_bpf ${header}
		DEPENDS ${object} VERBATIM COMMENT "Generating ${name}.skel.h")
	add_custom_target(${name}_skel_header DEPENDS ${header})
	add_library(${name}_skel INTERFACE)
	add_dependencies(${name}_skel ${name}_skel_header)
	target_include_directories(${name}_skel SYSTEM INTERFACE ${CMAKE_CURRENT_BINARY_DIR})
	target_link_libraries(${name}_skel INTERFACE PkgConfig::BPF)
endfunction()
