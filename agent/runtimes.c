// SPDX-License-Identifier: Apache-2.0
#include "agent/runtimes.h"

#include "base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* `python3.11` is python with a version behind it, `pythonic` is not. */
static bool is_version(const char *rest)
{
	return rest[strspn(rest, "0123456789.-")] == 0;
}

enum tables_runtime runtime_of_name(const char *name)
{
	/* Libraries by what they begin with; programs by all of their name but a version. */
	static const struct {
		const char *name;
		enum tables_runtime runtime;
	} known[] = {{"libjvm.so", RUNTIME_JVM}, {"libj9vm", RUNTIME_JVM}, {"libnode.so", RUNTIME_V8}, {"libv8.so", RUNTIME_V8}, {"libcoreclr.so", RUNTIME_DOTNET},
		{"libmonosgen-", RUNTIME_DOTNET}, {"libpython", RUNTIME_PYTHON}, {"libruby", RUNTIME_RUBY}, {"libphp", RUNTIME_PHP},
		{"libperl.so", RUNTIME_PERL}, {"libluajit", RUNTIME_LUAJIT}, {"node", RUNTIME_V8}, {"nodejs", RUNTIME_V8}, {"deno", RUNTIME_V8},
		{"dotnet", RUNTIME_DOTNET}, {"python", RUNTIME_PYTHON}, {"ruby", RUNTIME_RUBY}, {"php", RUNTIME_PHP}, {"php-fpm", RUNTIME_PHP},
		{"perl", RUNTIME_PERL}, {"beam.smp", RUNTIME_BEAM}, {"luajit", RUNTIME_LUAJIT}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		size_t len = strlen(known[i].name);
		if (strncmp(name, known[i].name, len) == 0 && (strncmp(name, "lib", 3) == 0 || is_version(name + len)))
			return known[i].runtime;
	}
	return RUNTIME_NONE;
}

const char *runtime_name(enum tables_runtime runtime)
{
	static const char *const names[TABLES_RUNTIMES] = {"native", "jvm", "v8js", "dotnet", "cpython", "ruby", "php", "perl", "beam", "luajit"};

	return runtime < TABLES_RUNTIMES ? names[runtime] : "unknown";
}
