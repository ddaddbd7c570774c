// SPDX-License-Identifier: Apache-2.0
#include "sandbox/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <unistd.h>

/* Descriptors are moved above this first, so that no dup2 onto a low number can overwrite one that comes later. */
enum { LAUNCH_FD_ABOVE = 64, ENVIRONMENT_MAX = 8 };

struct descriptors {
	int fds[LAUNCH_FDS_MAX];
	size_t count;
};

static void descriptors_close(struct descriptors *descriptors)
{
	for (size_t i = 0; i < descriptors->count; i++)
		(void)close(descriptors->fds[i]);
	descriptors->count = 0;
}

static void make_environment(char *list[ENVIRONMENT_MAX + 1])
{
	static const char *const kept[] = {"ASAN_OPTIONS=", "UBSAN_OPTIONS=", "LSAN_OPTIONS="};
	size_t count = 0;

	for (char **entry = environ; entry && *entry; entry++)
		for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
			if (count < ENVIRONMENT_MAX && strncmp(*entry, kept[i], strlen(kept[i])) == 0)
				list[count++] = *entry;
	list[count] = NULL;
}

static int set_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, all;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	int error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	if (!error)
		error = posix_spawnattr_setsigmask(attributes, &none);
	if (!error)
		error = posix_spawnattr_setsigdefault(attributes, &all);
	if (!error)
		error = posix_spawnattr_setpgroup(attributes, 0);
	return error;
}

static int add_actions(posix_spawn_file_actions_t *actions, const struct descriptors *descriptors)
{
	int error = 0;

	for (size_t i = 0; !error && i < descriptors->count; i++)
		error = posix_spawn_file_actions_adddup2(actions, descriptors->fds[i], (int)i);
	if (!error)
		error = posix_spawn_file_actions_addclosefrom_np(actions, (int)descriptors->count);
	return error;
}

static int start(const char *program, char *const arguments[], const struct descriptors *descriptors, pid_t *ret)
{
	char *environment[ENVIRONMENT_MAX + 1];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;

	make_environment(environment);
	int error = posix_spawn_file_actions_init(&actions);
	if (error)
		return error;
	error = posix_spawnattr_init(&attributes);
	if (!error) {
		error = set_attributes(&attributes);
		if (!error)
			error = add_actions(&actions, descriptors);
		if (!error)
			error = posix_spawn(ret, program, &actions, &attributes, arguments, environment);
		(void)posix_spawnattr_destroy(&attributes);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return error;
}

struct err *launch(const char *program, char *const arguments[], const int *fds, size_t count, pid_t *ret)
{
	CLEANUP(descriptors_close) struct descriptors moved = {0};
	pid_t pid = 0;

	if (count > LAUNCH_FDS_MAX)
		return err_new(ERR_INVALID, "%zu descriptors for %s", count, program);
	for (size_t i = 0; i < count; i++) {
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, LAUNCH_FD_ABOVE);
		if (fd < 0)
			return err_os(errno, "duplicate a descriptor for %s", program);
		moved.fds[moved.count++] = fd;
	}
	int error = start(program, arguments, &moved, &pid);
	if (error)
		return err_os(error, "start %s", program);
	*ret = pid;
	return NULL;
}
