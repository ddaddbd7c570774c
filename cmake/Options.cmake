# cairn_options: what every target of ours compiles with. Asserts stay on in release.
add_library(cairn_options INTERFACE)
target_include_directories(cairn_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_features(cairn_options INTERFACE c_std_17)
target_compile_definitions(cairn_options INTERFACE _GNU_SOURCE CAIRN_VERSION="${PROJECT_VERSION}")
target_compile_options(cairn_options INTERFACE
	-std=gnu17 -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wvla -Wundef -Wformat=2
	-Wstrict-prototypes -Wmissing-prototypes -Wno-unknown-warning-option
	-UNDEBUG -fno-omit-frame-pointer -fstack-protector-strong)
if(CAIRN_SANITIZE)
	target_compile_options(cairn_options INTERFACE -fsanitize=${CAIRN_SANITIZE} -fno-sanitize-recover=all)
	target_link_options(cairn_options INTERFACE -fsanitize=${CAIRN_SANITIZE})
endif()
