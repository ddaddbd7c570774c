// SPDX-License-Identifier: Apache-2.0
/*
 * Stands in for cairn-worker: the same command line, sandbox and frames, but it does what the first input says. A line
 * `<word>`, or `<word> <number>`; with a table to send, its bytes follow the line.
 */
#include "base/err.h"
#include "worker/options.h"
#include "worker/output.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static char script[1 << 16];
static size_t script_len;
static struct output output;
static const struct worker_options *chosen;

static void nap(unsigned ms)
{
	struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	(void)nanosleep(&wait, NULL);
}

static void give(const void *table, size_t len, const struct build_id *id)
{
	struct protocol_result result = {.size_bytes = script_len, .elf_machine = 62, .sources = len > 0, .builder_version = 1, .build_id = *id};

	err_free(fileid_from_memory(script, script_len, &result.fileid));
	err_free(output_result(&output, &result, table, len));
}

/* ---- ways to break out */

static void do_socket(void)
{
	(void)socket(AF_INET, SOCK_STREAM, 0);
}

static void do_open(void)
{
	(void)open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static void do_exec(void)
{
	char *arguments[] = {(char[]){"true"}, NULL};

	(void)execve("/bin/true", arguments, NULL);
}

static void do_fork(void)
{
	(void)syscall(SYS_fork);
}

static void do_clone_process(void)
{
	(void)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void do_mmap_exec(void)
{
	(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_mmap_shared(void)
{
	(void)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void do_mprotect_exec(void)
{
	static char page[8192];

	(void)mprotect((void *)(((uintptr_t)page + 4095) & ~(uintptr_t)4095), 4096, PROT_READ | PROT_EXEC);
}

static void do_kill(void)
{
	(void)kill(getppid(), SIGTERM);
}

static void do_sigaction(void)
{
	(void)signal(SIGSYS, SIG_IGN);
}

static void do_setrlimit(void)
{
	struct rlimit limit = {0};

	(void)setrlimit(RLIMIT_DATA, &limit);
}

/* With the handler blocked the kernel kills by itself. */
static void do_blocked(void)
{
	sigset_t all;

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)syscall(SYS_getppid);
}

/* ---- ways to go wrong */

static void do_crash(void)
{
	(void)raise(SIGSEGV);
}

static void do_abort(void)
{
	(void)!write(STDERR_FILENO, "free(): invalid pointer\n", 24);
	abort();
}

static void do_hang(void)
{
	for (;;)
		nap(1000);
}

static void do_spin(void)
{
	for (volatile unsigned i = 0;; i++)
		;
}

/* Keeps clang from leaving out memory that nobody reads. */
static void *volatile kept;

/* Takes memory until malloc says no, and says so as a parser would. */
static void do_memory(void)
{
	for (;;) {
		char *block = malloc(1 << 20);
		if (!block)
			break;
		memset(block, 1, 1 << 20);
		kept = block;
	}
	output_failed(&output, err_nomem(), chosen->memory_bytes);
	_exit(1);
}

static void do_truncate(void)
{
	struct buf frame = {0};
	struct protocol_result result = {.table_bytes = 100};

	err_free(protocol_put_result(&frame, &result));
	(void)!write(output.fd, frame.data, frame.len);
	_exit(0);
}

static void do_garbage(void)
{
	for (;;)
		if (write(output.fd, script, sizeof(script)) < 0)
			_exit(0);
}

static void do_linger(void)
{
	err_free(output_done(&output));
	(void)close(output.fd);
	do_hang();
}

static void do_flood(void)
{
	for (unsigned i = 0; i < 1000; i++)
		(void)!write(STDERR_FILENO, script, sizeof(script));
	err_free(output_done(&output));
	_exit(0);
}

static void do_status(void)
{
	err_free(output_done(&output));
	_exit(3);
}

/* ---- ways to go right */

static void *in_thread(void *argument)
{
	*(int *)argument = 7;
	return NULL;
}

static void do_threads(void)
{
	pthread_t threads[8];
	int values[8] = {0}, sum = 0;

	for (size_t i = 0; i < 8; i++)
		if (pthread_create(&threads[i], NULL, in_thread, &values[i]))
			_exit(4);
	for (size_t i = 0; i < 8; i++) {
		(void)pthread_join(threads[i], NULL);
		sum += values[i];
	}
	if (sum != 56)
		_exit(5);
	give(NULL, 0, &(struct build_id){0});
}

/* Memory of a thread's own arena, given back; and qsort, which asks for the size of memory. */
static void *churn(void *argument)
{
	static _Thread_local void *blocks[256];

	for (size_t i = 0; i < 256; i++)
		blocks[i] = malloc(20000);
	for (size_t i = 256; i-- > 0;)
		free(blocks[i]);
	return argument;
}

static int compare_bytes(const void *a, const void *b)
{
	return *(const uint8_t *)a - *(const uint8_t *)b;
}

static void do_heaps(void)
{
	for (unsigned i = 0; i < 8; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, churn, NULL))
			_exit(4);
		(void)pthread_join(thread, NULL);
	}
	char *bytes = malloc(1 << 20);
	memset(bytes, 7, 1 << 20);
	bytes[0] = 9;
	qsort(bytes, 1 << 14, 64, compare_bytes);
	free(bytes);
	give(NULL, 0, &(struct build_id){0});
}

static void do_needs(void)
{
	struct protocol_needs needs = {.build_id = {.len = 4, .bytes = {0xde, 0xad, 0xbe, 0xef}}, .name = "x.dwz"};

	if (chosen->supplement_fd >= 0) {
		give(NULL, 0, &(struct build_id){0});
		return;
	}
	err_free(output_needs(&output, &needs));
	_exit(0);
}

static void do_progress(void)
{
	for (unsigned i = 0; i < 4; i++) {
		output_progress(&output, i % 2 ? PROTOCOL_READING : PROTOCOL_WRITING, i, 4);
		nap(20);
	}
	give(NULL, 0, &(struct build_id){0});
}

static void do_fail(void)
{
	struct err *e = err_new(ERR_FORMAT, "binary: .debug_info+0x12: nonsense");

	output_failed(&output, e, 0);
	err_free(e);
	_exit(1);
}

static void do_empty(void)
{
	give(NULL, 0, &(struct build_id){0});
}

/* All descriptors that are not ours are closed, and no new one fits. */
static void do_descriptors(void)
{
	for (int fd = PROTOCOL_FD_INPUT + 1; fd < 4096; fd++)
		if (lseek(fd, 0, SEEK_CUR) >= 0 || errno != EBADF)
			_exit(6);
	give(NULL, 0, &(struct build_id){0});
}

static void do_sigkill(void)
{
	(void)raise(SIGKILL);
}

static void do_stall(void)
{
	output_progress(&output, PROTOCOL_READING, 5, 10);
	do_hang();
}

/* Wants its debug file. */
static void do_pair(void)
{
	if (chosen->debug_fd < 0) {
		do_fail();
		return;
	}
	give(NULL, 0, &(struct build_id){.len = 4, .bytes = {0xaa, 0xaa, 0xaa, 0xaa}});
}

/* Does not want the debug file that it is given. */
static void do_alone(void)
{
	if (chosen->debug_fd >= 0) {
		do_fail();
		return;
	}
	give(NULL, 0, &(struct build_id){.len = 4, .bytes = {0xaa, 0xaa, 0xaa, 0xaa}});
}

/* A package of two files and one that is not used. */
static void do_package(void)
{
	err_free(output_skipped(&output, "usr/bin/bad", "damaged"));
	give(NULL, 0, &(struct build_id){0});
	struct protocol_result result = {.size_bytes = 7, .elf_machine = 62, .fileid = {{1}}};
	(void)snprintf(result.name, sizeof(result.name), "usr/bin/second");
	err_free(output_result(&output, &result, NULL, 0));
}

static void do_twice(void)
{
	give(NULL, 0, &(struct build_id){0});
	give(NULL, 0, &(struct build_id){0});
}

static void do_nothing(void)
{
}

static void do_stranger(void)
{
	struct protocol_result result = {.size_bytes = script_len, .elf_machine = 62, .fileid = {{1}}};

	err_free(output_result(&output, &result, NULL, 0));
}

/* `table`: the bytes after the line are the table; the number is the length of the build ID of 0xbb bytes that it claims. */
static void do_table(void)
{
	struct build_id id = {0};
	const char *end = memchr(script, '\n', script_len);
	const char *number = memchr(script, ' ', (size_t)(end - script));

	id.len = number ? (uint8_t)atoi(number) : 0;
	memset(id.bytes, 0xbb, id.len);
	give(end + 1, script_len - (size_t)(end + 1 - script), &id);
}

static const struct {
	const char *word;
	void (*run)(void);
} words[] = {
	{"socket", do_socket}, {"open", do_open}, {"exec", do_exec}, {"fork", do_fork}, {"clone", do_clone_process},
	{"mmap-exec", do_mmap_exec}, {"mmap-shared", do_mmap_shared}, {"mprotect-exec", do_mprotect_exec}, {"kill", do_kill},
	{"sigaction", do_sigaction}, {"setrlimit", do_setrlimit}, {"blocked", do_blocked}, {"crash", do_crash}, {"abort", do_abort},
	{"hang", do_hang}, {"spin", do_spin}, {"memory", do_memory}, {"truncate", do_truncate}, {"garbage", do_garbage},
	{"linger", do_linger}, {"flood", do_flood}, {"status", do_status}, {"threads", do_threads}, {"needs", do_needs},
	{"progress", do_progress}, {"fail", do_fail}, {"empty", do_empty}, {"descriptors", do_descriptors}, {"table", do_table},
	{"sigkill", do_sigkill}, {"stall", do_stall}, {"pair", do_pair}, {"alone", do_alone}, {"package", do_package},
	{"twice", do_twice}, {"stranger", do_stranger}, {"nothing", do_nothing}, {"heaps", do_heaps},
};

static void obey(void)
{
	size_t len = strcspn(script, " \n");

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strlen(words[i].word) == len && memcmp(words[i].word, script, len) == 0) {
			words[i].run();
			return;
		}
	}
	_exit(9);
}

int main(int argc, char **argv)
{
	struct worker_options options;
	struct err *e = worker_options_parse(argc, argv, &options);

	if (e) {
		(void)fprintf(stderr, "%s\n", err_message(e));
		return 2;
	}
	struct sandbox_limits limits = {
		.memory_bytes = options.memory_bytes,
		.cpu_seconds = options.cpu_seconds,
		.file_bytes = options.unpacked_bytes,
		.last_fd = worker_options_last_fd(&options),
	};
	int input = options.mode == WORKER_PACKAGE ? options.package_fd : options.binary_fd >= 0 ? options.binary_fd : options.debug_fd;
	struct fileid warm;

	(void)signal(SIGSEGV, SIG_DFL); /* AddressSanitizer would make an exit of it */
	chosen = &options;
	err_free(fileid_from_memory("", 0, &warm));
	ssize_t got = pread(input, script, sizeof(script) - 1, 0);
	script_len = got > 0 ? (size_t)got : 0;
	e = output_init(&output, PROTOCOL_FD_OUTPUT);
	if (!e)
		e = sandbox_enter(&limits);
	if (e) {
		(void)fprintf(stderr, "%s\n", err_message(e));
		return 2;
	}
	obey();
	e = output_done(&output);
	output_deinit(&output);
	return e ? 1 : 0;
}
