// SPDX-License-Identifier: Apache-2.0
/*
 * A program that ends, or spins, at the bottom of a stack of a chosen shape:
 *     stacks CASE [spin]
 * or calls a function 500 times a second (beat), or stays in the kernel (kernel) or in a module of it (module), or
 * starts many short-lived processes (storm COUNT PROGRAM) or threads (many [COUNT]).
 * Built several ways by the tests: -O0, -O2, with and without frame pointers, static.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int spin, sink;

static __attribute__((noinline)) void bottom(void)
{
	while (spin)
		sink++;
#ifdef TRAP /* a C library without call frame information is left out */
	__builtin_trap();
#else
	raise(SIGABRT);
#endif
	sink++;
}

static __attribute__((noinline)) int leaf_case(int n)
{
	if (n > 0)
		sink += n;
	bottom();
	return sink + n;
}

static __attribute__((noinline)) int deep(int n)
{
	int here = n;
	if (n == 0)
		bottom();
	else
		here += deep(n - 1);
	return here + sink;
}

static __attribute__((noinline)) int dynamic(int n)
{
	char *bytes = alloca((size_t)n);
	memset(bytes, n, (size_t)n);
	bottom();
	return bytes[n / 2];
}

static __attribute__((noinline)) int aligned(int n)
{
	volatile char bytes[64] __attribute__((aligned(64)));
	bytes[n & 63] = (char)n;
	dynamic(n);
	return bytes[(n + 1) & 63];
}

static int compare(const void *a, const void *b)
{
	if (*(const int *)a == 7)
		bottom();
	return *(const int *)a - *(const int *)b;
}

static __attribute__((noinline)) int plt(int n)
{
	int items[] = {9, 7, n, 3};
	qsort(items, 4, sizeof(items[0]), compare);
	return items[0] + sink;
}

static void handler(int number)
{
	(void)number;
	deep(5);
}

static __attribute__((noinline)) int in_signal(int n)
{
	static char stack[1 << 16];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};

	sigaltstack(&alternate, NULL);
	sigaction(SIGUSR1, &action, NULL);
	if (n == 1)
		raise(SIGUSR1);
	else {
		action.sa_handler = handler;
		sigaction(SIGSEGV, &action, NULL);
		*(volatile int *)(size_t)(n - 2) = 1; /* the interrupted frame is not at a call */
	}
	return sink + n;
}

static __attribute__((noinline)) void beat(int n)
{
	sink += n;
	usleep(2000);
}

static int beats(int n)
{
	for (;;)
		beat(n);
	return sink;
}

static int in_kernel(int n)
{
	static char bytes[1 << 16];

	for (;;)
		if (getrandom(bytes, sizeof(bytes), 0) < 0)
			return sink + n;
}

/* Stays in a module of the kernel: RIPEMD-160 by AF_ALG. */
static int in_module(int n)
{
	static char bytes[1 << 16];
	/* struct sockaddr_alg of linux/if_alg.h, which musl-gcc has not. */
	const struct {
		sa_family_t family;
		char type[14];
		unsigned feat, mask;
		char name[64];
	} address = {.family = AF_ALG, .type = "hash", .name = "rmd160"};
	int algorithm = socket(AF_ALG, SOCK_SEQPACKET, 0), hash = -1;

	if (algorithm >= 0 && bind(algorithm, (const struct sockaddr *)&address, sizeof(address)) == 0)
		hash = accept(algorithm, NULL, NULL);
	while (hash >= 0)
		if (send(hash, bytes, sizeof(bytes), MSG_MORE) < 0)
			break;
	perror("rmd160");
	return sink + n;
}

static __attribute__((noinline)) int work(int ms)
{
	clock_t end = clock() + ms * (CLOCKS_PER_SEC / 1000);

	while (clock() < end)
		sink++;
	return sink;
}

/* Starts @count processes of @program, WIDTH at a time. */
static int storm(const char *program, int count)
{
	enum { WIDTH = 8 };

	for (int i = 0; i < count; i++) {
		if (i >= WIDTH)
			wait(NULL);
		if (vfork() == 0) {
			execl(program, program, NULL);
			_exit(127);
		}
	}
	while (wait(NULL) > 0)
		;
	return 0;
}

static void *busy_thread(void *arg)
{
	/* All of them together take a tenth of a CPU, spread evenly. */
	usleep((useconds_t)(size_t)arg * 10000);
	for (;;) {
		work(1);
		sleep(50);
	}
	return arg;
}

static int many_threads(int count)
{
	pthread_attr_t attributes;
	pthread_t id;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 1 << 16);
	for (int i = 0; i < count; i++)
		if (pthread_create(&id, &attributes, busy_thread, (void *)(size_t)i) != 0)
			return 1;
	puts("ready");
	fflush(stdout);
	return pause();
}

static void *thread(void *arg)
{
	if (arg)
		sleep(1), deep(30);
	for (;;)
		pause();
	return NULL;
}

static int threads(int n)
{
	pthread_t ids[8];
	for (int i = 0; i < 8; i++)
		pthread_create(&ids[i], NULL, thread, i == n ? ids : NULL);
	pthread_join(ids[0], NULL);
	return sink;
}

static __attribute__((noinline, cold)) void never(int n)
{
	sink += n;
	bottom();
}

/* The call is in the part that the compiler moves away: cold_case.cold. */
static __attribute__((noinline)) int cold_case(int n)
{
	int items[8] = {0};

	for (int i = 0; i < 8; i++)
		items[i] = n * sink + i;
	if (__builtin_expect(items[3] != n, 1)) {
		never(items[n & 7]);
		sink = items[2];
	}
	return items[n & 7] + sink;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	alarm(900); /* a test that was killed leaves nothing behind that runs on */
	spin = argc > 2 && strcmp(argv[2], "spin") == 0;
	if (strcmp(name, "leaf") == 0)
		return leaf_case(argc);
	if (strcmp(name, "deep") == 0)
		return deep(argc > 3 ? atoi(argv[3]) : 500);
	if (strcmp(name, "aligned") == 0)
		return aligned(argc + 40);
	if (strcmp(name, "plt") == 0)
		return plt(argc);
	if (strcmp(name, "signal") == 0)
		return in_signal(1);
	if (strcmp(name, "fault") == 0)
		return in_signal(2);
	if (strcmp(name, "threads") == 0)
		return threads(5);
	if (strcmp(name, "cold") == 0)
		return cold_case(argc);
	if (strcmp(name, "beat") == 0)
		return beats(argc);
	if (strcmp(name, "kernel") == 0)
		return in_kernel(argc);
	if (strcmp(name, "module") == 0)
		return in_module(argc);
	if (strcmp(name, "storm") == 0 && argc > 3)
		return storm(argv[3], atoi(argv[2]));
	if (strcmp(name, "many") == 0)
		return many_threads(argc > 2 ? atoi(argv[2]) : 5000);
	fprintf(stderr, "usage: stacks cold|leaf|deep|aligned|plt|signal|fault|threads|beat|kernel|module|storm COUNT PROGRAM|many [spin [DEPTH]]\n");
	return 2;
}
