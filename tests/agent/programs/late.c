// SPDX-License-Identifier: Apache-2.0
/*
 * late LIBRARY: says "ready", waits for SIGUSR1, then opens the library and stays in its function `inside`. Built with -DLIBRARY it is
 * that library.
 */
#ifdef LIBRARY
static volatile int sink;

__attribute__((noinline)) static void spin(void)
{
	for (;;)
		sink++;
}

int inside(int n)
{
	spin();
	return sink + n;
}
#else
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static __attribute__((noinline)) int load(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);
	int (*inside)(int) = library ? (int (*)(int))dlsym(library, "inside") : NULL;

	return inside ? inside(1) + 1 : 3;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int number;

	alarm(900); /* a test that was killed leaves nothing behind that runs on */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	puts("ready");
	fflush(stdout);
	if (argc < 2 || sigwait(&set, &number) != 0)
		return 2;
	return load(argv[1]);
}
#endif
