// SPDX-License-Identifier: Apache-2.0
/* Runtimes whose own frames are not told from one another here: recognised by the executables that a process maps. */
#ifndef CAIRN_AGENT_RUNTIMES_H
#define CAIRN_AGENT_RUNTIMES_H

enum tables_runtime {
	RUNTIME_NONE,
	RUNTIME_JVM,
	RUNTIME_V8,
	RUNTIME_DOTNET,
	RUNTIME_PYTHON,
	RUNTIME_RUBY,
	RUNTIME_PHP,
	RUNTIME_PERL,
	RUNTIME_BEAM,
	RUNTIME_LUAJIT,
	TABLES_RUNTIMES,
};

/** By an executable's base name. */
enum tables_runtime runtime_of_name(const char *name);
/** "jvm", "v8js", ..: as profile.frame.type of OpenTelemetry has them. */
const char *runtime_name(enum tables_runtime runtime);

#endif
