cairn_pkg(CRITERION "criterion>=2.4" libcriterion-dev)

# What a sanitizer prints fails a test even where Criterion lets it pass (Criterion 2.4.1 ignores leaks).
set(CAIRN_SANITIZER_WORDS "(ERROR|WARNING): (Address|Leak|Thread|UndefinedBehavior)Sanitizer;runtime error:")

# cairn_test(FOLDER_UNIT SOURCES x_test.c [LINK ...] [LABEL unit|fixture|integration|...] [TIMEOUT s])
# One Criterion executable and one ctest entry, named <label>.<folder_unit>.
function(cairn_test name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;TIMEOUT" "SOURCES;LINK;ENVIRONMENT")
	if(NOT arg_LABEL)
		set(arg_LABEL unit)
	endif()
	if(NOT arg_TIMEOUT)
		set(arg_TIMEOUT 120)
	endif()
	add_executable(${name}_test ${arg_SOURCES})
	target_link_libraries(${name}_test PRIVATE cairn_options PkgConfig::CRITERION ${arg_LINK})
	add_test(NAME ${arg_LABEL}.${name} COMMAND ${name}_test --jobs 1)
	set_tests_properties(${arg_LABEL}.${name} PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT}
		FAIL_REGULAR_EXPRESSION "${CAIRN_SANITIZER_WORDS}"
		ENVIRONMENT "CAIRN_SOURCE_DIR=${PROJECT_SOURCE_DIR};CAIRN_BINARY_DIR=${PROJECT_BINARY_DIR};${arg_ENVIRONMENT}")
endfunction()

# cairn_script_test(NAME COMMAND ... [LABEL lint|integration] [TIMEOUT s] [CONFIGURATIONS c]): exit 0 passes, 77 skips.
# With CONFIGURATIONS it runs under `ctest -C c` only.
function(cairn_script_test name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;TIMEOUT" "COMMAND;ENVIRONMENT;CONFIGURATIONS")
	if(NOT arg_LABEL)
		set(arg_LABEL integration)
	endif()
	if(NOT arg_TIMEOUT)
		set(arg_TIMEOUT 300)
	endif()
	if(arg_CONFIGURATIONS)
		set(arg_CONFIGURATIONS CONFIGURATIONS ${arg_CONFIGURATIONS})
	endif()
	add_test(NAME ${arg_LABEL}.${name} COMMAND ${arg_COMMAND} ${arg_CONFIGURATIONS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
	set_tests_properties(${arg_LABEL}.${name} PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77
		FAIL_REGULAR_EXPRESSION "${CAIRN_SANITIZER_WORDS}"
		ENVIRONMENT "CAIRN_SOURCE_DIR=${PROJECT_SOURCE_DIR};CAIRN_BINARY_DIR=${PROJECT_BINARY_DIR};${arg_ENVIRONMENT}")
endfunction()

# cairn_fuzz(NAME SOURCES x_fuzz.c LINK ...): LLVMFuzzerTestOneInput in tests/fuzz/NAME_fuzz.c.
# With CAIRN_FUZZ a libFuzzer program; otherwise a program that replays tests/fuzz/corpus/NAME, run by ctest.
function(cairn_fuzz name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINK")
	if(CAIRN_FUZZ)
		add_executable(${name}_fuzz ${arg_SOURCES})
		target_link_libraries(${name}_fuzz PRIVATE cairn_options ${arg_LINK})
		target_compile_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
		target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
	else()
		add_executable(${name}_fuzz ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
		target_link_libraries(${name}_fuzz PRIVATE cairn_options ${arg_LINK})
		add_test(NAME fuzz-replay.${name} COMMAND ${name}_fuzz ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
		set_tests_properties(fuzz-replay.${name} PROPERTIES LABELS fuzz-replay TIMEOUT 300
			FAIL_REGULAR_EXPRESSION "${CAIRN_SANITIZER_WORDS}")
	endif()
endfunction()
