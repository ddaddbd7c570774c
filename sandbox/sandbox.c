// SPDX-License-Identifier: Apache-2.0
/*
 * The sandbox of cairn-worker and cairn-unwind. What it holds against is a parser that a hostile file has taken over: code that runs as us
 * and wants out, or that eats the machine.
 *
 *   memory       RLIMIT_DATA counts private writable memory, heap and stacks: the ceiling. Inputs are mapped read-only and
 *                are page cache, so they do not count, whatever their size. RLIMIT_AS stops what RLIMIT_DATA does not see
 *                (reserved address space); shared anonymous memory, which neither would catch by content, seccomp refuses.
 *   time         RLIMIT_CPU; the wall clock is the parent's.
 *   disk         RLIMIT_FSIZE on the scratch file.
 *   descriptors  all above the last one are closed; RLIMIT_NOFILE forbids new numbers; so does seccomp.
 *   processes    seccomp: clone only as pthread_create uses it (clone3 says ENOSYS, since its flags lie in memory, where a
 *                filter cannot look); RLIMIT_NPROC is per user and would count others, so it is not used.
 *   kernel       seccomp: a list of what malloc, threads, reading, mapping and ending need. All else is SIGSYS.
 *
 * A forbidden call is trapped, not killed at once, so that it has a name: the handler writes one line and then makes a call
 * that the filter answers by killing the process. No way leads back: the action of SIGSYS cannot be changed in the sandbox, a
 * handler that is blocked makes the kernel kill, and the call itself was never executed.
 *
 * Rejected: a user or mount namespace and chroot (need privileges or a kernel setting that distributions switch off; they
 * take away what seccomp takes away already), SECCOMP_RET_KILL alone (the parent sees SIGSYS but not which call),
 * SECCOMP_RET_USER_NOTIF (a supervisor in cairnd for one line of text), strict mode (no threads, no mmap).
 */
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_FULL 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_FULL 0
#endif
#endif
#ifndef SANDBOX_FULL
#define SANDBOX_FULL 1
#endif

/* Made by the handler only, after its line: the filter kills the process for it. */
enum { CALL_TO_DIE_BY = SYS_kexec_load };
/* Address space beyond memory and mapped files: libraries, malloc's reserved arenas (64 MiB each, not writable). */
enum { ADDRESS_ROOM_BYTES = 1u << 30 };

bool sandbox_is_full(void)
{
	return SANDBOX_FULL;
}

/* ---------------------------------------------------------------------------------------- last words */

/* For the reader of a log; any other call is a number. A table, since libseccomp's resolver allocates. */
static const char *call_name(int number)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {
		{SYS_socket, "socket"}, {SYS_connect, "connect"}, {SYS_bind, "bind"}, {SYS_listen, "listen"},
		{SYS_accept, "accept"}, {SYS_accept4, "accept4"}, {SYS_socketpair, "socketpair"}, {SYS_open, "open"},
		{SYS_openat, "openat"}, {SYS_openat2, "openat2"}, {SYS_creat, "creat"}, {SYS_execve, "execve"},
		{SYS_execveat, "execveat"}, {SYS_fork, "fork"}, {SYS_vfork, "vfork"}, {SYS_clone, "clone"}, {SYS_ptrace, "ptrace"},
		{SYS_kill, "kill"}, {SYS_tgkill, "tgkill"}, {SYS_mmap, "mmap"}, {SYS_mprotect, "mprotect"}, {SYS_ioctl, "ioctl"},
		{SYS_prctl, "prctl"}, {SYS_unlink, "unlink"}, {SYS_unlinkat, "unlinkat"}, {SYS_rename, "rename"},
		{SYS_readlink, "readlink"}, {SYS_stat, "stat"}, {SYS_access, "access"}, {SYS_fcntl, "fcntl"}, {SYS_dup, "dup"},
		{SYS_dup2, "dup2"}, {SYS_pipe2, "pipe2"}, {SYS_memfd_create, "memfd_create"}, {SYS_rt_sigaction, "rt_sigaction"},
		{SYS_setrlimit, "setrlimit"}, {SYS_prlimit64, "prlimit64"}, {SYS_process_vm_readv, "process_vm_readv"},
		{SYS_io_uring_setup, "io_uring_setup"}, {SYS_bpf, "bpf"}, {SYS_uname, "uname"}, {SYS_sysinfo, "sysinfo"},
		{SYS_statfs, "statfs"}, {SYS_getcwd, "getcwd"}, {SYS_getdents64, "getdents64"}, {SYS_clone3, "clone3"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].number == number)
			return names[i].name;
	return "?";
}

static size_t append(char *line, size_t at, size_t cap, const char *text)
{
	while (*text && at < cap)
		line[at++] = *text++;
	return at;
}

/* Async-signal-safe: no allocation, no stdio. */
static void on_forbidden(int signal, siginfo_t *info, void *context)
{
	char digits[12], line[96];
	size_t digit = sizeof(digits) - 1, at;
	unsigned number = (unsigned)info->si_syscall;

	(void)signal;
	(void)context;
	digits[digit] = 0;
	do
		digits[--digit] = (char)('0' + number % 10);
	while ((number /= 10) != 0);
	at = append(line, 0, sizeof(line), "forbidden system call ");
	at = append(line, at, sizeof(line), digits + digit);
	at = append(line, at, sizeof(line), " (");
	at = append(line, at, sizeof(line), call_name(info->si_syscall));
	at = append(line, at, sizeof(line), ")\n");
	(void)!write(STDERR_FILENO, line, at);
	(void)syscall(CALL_TO_DIE_BY, 0, 0, 0, 0);
	_exit(127);
}

/* ---------------------------------------------------------------------------------------- limits */

static struct err *limit(__rlimit_resource_t resource, const char *name, uint64_t soft, uint64_t hard)
{
	struct rlimit now, want = {.rlim_cur = soft, .rlim_max = hard};

	if (getrlimit(resource, &now))
		return err_os(errno, "getrlimit %s", name);
	if (want.rlim_max > now.rlim_max)
		want.rlim_max = now.rlim_max;
	if (want.rlim_cur > want.rlim_max)
		want.rlim_cur = want.rlim_max;
	if (setrlimit(resource, &want))
		return err_os(errno, "setrlimit %s", name);
	return NULL;
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static struct err *limit_all(const struct sandbox_limits *limits)
{
	uint64_t space = add(add(limits->memory_bytes, limits->mapped_bytes), ADDRESS_ROOM_BYTES);

	TRY(limit(RLIMIT_CORE, "CORE", 0, 0));
	TRY(limit(RLIMIT_CPU, "CPU", limits->cpu_seconds, add(limits->cpu_seconds, 1)));
	TRY(limit(RLIMIT_FSIZE, "FSIZE", limits->file_bytes, limits->file_bytes));
	TRY(limit(RLIMIT_MEMLOCK, "MEMLOCK", 0, 0));
	TRY(limit(RLIMIT_MSGQUEUE, "MSGQUEUE", 0, 0));
	if (!SANDBOX_FULL)
		return NULL;
	TRY(limit(RLIMIT_NOFILE, "NOFILE", (uint64_t)limits->last_fd + 1, (uint64_t)limits->last_fd + 1));
	TRY(limit(RLIMIT_AS, "AS", space, space));
	return limit(RLIMIT_DATA, "DATA", limits->memory_bytes, limits->memory_bytes);
}

/* ---------------------------------------------------------------------------------------- the filter */

/*
 * Allowed with any arguments: they act on this process and on descriptors that it has. sysinfo is what glibc's qsort asks
 * before it takes memory for more than 1,024 bytes.
 */
static const int allowed_calls[] = {
	SYS_read, SYS_pread64, SYS_readv, SYS_write, SYS_pwrite64, SYS_writev, SYS_lseek, SYS_close, SYS_fstat, SYS_ftruncate,
	SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_futex, SYS_set_robust_list, SYS_rseq, SYS_rt_sigreturn,
	SYS_rt_sigprocmask, SYS_sigaltstack, SYS_sched_yield, SYS_sched_getaffinity, SYS_getpid, SYS_gettid, SYS_exit, SYS_exit_group,
	SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_getrandom, SYS_getrusage,
	SYS_restart_syscall, SYS_sysinfo,
};

/* Never needed, and refused even where the rest is allowed (the weaker profile of sanitizer builds). */
static const int network_and_program_calls[] = {
	SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
	SYS_recvfrom, SYS_recvmsg, SYS_execve, SYS_execveat, SYS_fork, SYS_vfork, SYS_bpf, SYS_io_uring_setup, SYS_unlink,
	SYS_unlinkat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_mkdir, SYS_mkdirat, SYS_chmod, SYS_fchmodat, SYS_mount, SYS_setuid,
};

static struct err *seccomp_error(int result, const char *what)
{
	return result == -ENOMEM ? err_nomem() : err_new(ERR_INTERNAL, "seccomp %s: %s", what, strerror(-result));
}

static struct err *add_rule(scmp_filter_ctx filter, uint32_t action, int call, unsigned count, const struct scmp_arg_cmp *args)
{
	int result = seccomp_rule_add_exact_array(filter, action, call, count, args);

	return result ? seccomp_error(result, call_name(call)) : NULL;
}

/* As libseccomp's SCMP_An macros, which leave a member out. */
#define ARG_IS(number, value) {.arg = number, .op = SCMP_CMP_EQ, .datum_a = (scmp_datum_t)(value)}
#define ARG_BITS(number, mask, value)                                                              \
	{.arg = number, .op = SCMP_CMP_MASKED_EQ, .datum_a = (scmp_datum_t)(mask), .datum_b = (scmp_datum_t)(value)}
#define RULE(filter, action, call, ...)                                                            \
	add_rule(filter, action, call, sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp), \
		(struct scmp_arg_cmp[]){__VA_ARGS__})

/* What pthread_create of glibc 2.36 asks for. */
enum {
	THREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
		       CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
};

/* Allowed with some arguments only. */
static struct err *add_checked_calls(scmp_filter_ctx filter)
{
	/* Memory that is never executable; anonymous memory only private, so that RLIMIT_DATA counts it. */
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_mmap, ARG_BITS(2, PROT_EXEC, 0),
		ARG_BITS(3, MAP_PRIVATE | MAP_SHARED, MAP_PRIVATE)));
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_mmap, ARG_BITS(2, PROT_EXEC, 0),
		ARG_BITS(3, MAP_ANONYMOUS | MAP_PRIVATE | MAP_SHARED, MAP_SHARED)));
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_mprotect, ARG_BITS(2, PROT_EXEC, 0)));
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_clone, ARG_IS(0, THREAD_FLAGS)));
	TRY(add_rule(filter, SCMP_ACT_ERRNO(ENOSYS), SYS_clone3, 0, NULL));
	/* The first pthread_create sets up glibc's two signals of its own, 32 and 33; no other action may change. */
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_rt_sigaction, ARG_IS(0, 32)));
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_rt_sigaction, ARG_IS(0, 33)));
	/* stdio and the dynamic loader ask what a descriptor is: an error serves them. */
	TRY(RULE(filter, SCMP_ACT_ERRNO(ENOTTY), SYS_ioctl, ARG_IS(1, TCGETS)));
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_newfstatat, ARG_BITS(3, AT_EMPTY_PATH, AT_EMPTY_PATH)));
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_fcntl, ARG_IS(1, F_GETFL)));
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_prctl, ARG_IS(0, PR_SET_NAME)));
	/* glibc's sysconf asks for the stack's limit; it may not set any. */
	TRY(RULE(filter, SCMP_ACT_ALLOW, SYS_prlimit64, ARG_IS(0, 0), ARG_IS(2, 0)));
	/* abort(): a signal to itself. */
	return RULE(filter, SCMP_ACT_ALLOW, SYS_tgkill, ARG_IS(0, (scmp_datum_t)getpid()));
}

static struct err *add_full_profile(scmp_filter_ctx filter)
{
	for (size_t i = 0; i < ARRAY_SIZE(allowed_calls); i++)
		TRY(add_rule(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0, NULL));
	return add_checked_calls(filter);
}

static struct err *add_weak_profile(scmp_filter_ctx filter)
{
	for (size_t i = 0; i < ARRAY_SIZE(network_and_program_calls); i++)
		TRY(add_rule(filter, SCMP_ACT_TRAP, network_and_program_calls[i], 0, NULL));
	return NULL;
}

static void filter_releasep(scmp_filter_ctx *filter)
{
	if (*filter)
		seccomp_release(*filter);
}

static struct err *filter_load(void)
{
	CLEANUP(filter_releasep) scmp_filter_ctx filter = seccomp_init(SANDBOX_FULL ? SCMP_ACT_TRAP : SCMP_ACT_ALLOW);

	if (!filter)
		return err_nomem();
	/* Calls of another architecture (32-bit int 0x80, x32) are other numbers: death without words. */
	int result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!result)
		result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree instead of a list */
	if (result)
		return seccomp_error(result, "attributes");
	TRY(SANDBOX_FULL ? add_full_profile(filter) : add_weak_profile(filter));
	TRY(add_rule(filter, SCMP_ACT_KILL_PROCESS, CALL_TO_DIE_BY, 0, NULL));
	result = seccomp_load(filter);
	return result ? seccomp_error(result, "load") : NULL;
}

/* ---------------------------------------------------------------------------------------- entering */

enum { WARM_BLOCKS = 64, WARM_BYTES = 64 * 1024 };

static void *fill_and_empty_an_arena(void *argument)
{
	void *blocks[WARM_BLOCKS];

	for (size_t i = 0; i < WARM_BLOCKS; i++)
		blocks[i] = malloc(WARM_BYTES);
	for (size_t i = WARM_BLOCKS; i-- > 0;)
		free(blocks[i]);
	return argument;
}

/*
 * The first time that glibc's malloc gives memory of a thread's arena back it reads /proc/sys/vm/overcommit_memory
 * (shrink_heap; remembered afterwards). That must not be the first time in the sandbox.
 */
static struct err *warm_allocator(void)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, fill_and_empty_an_arena, NULL);

	if (!error)
		error = pthread_join(thread, NULL);
	return error ? err_os(error, "thread") : NULL;
}

static struct err *process_flags(void)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		return err_os(errno, "PR_SET_PDEATHSIG");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_os(errno, "PR_SET_NO_NEW_PRIVS");
	/* Also keeps other processes of the same user from attaching. LeakSanitizer attaches to its own process. */
	if (SANDBOX_FULL && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return err_os(errno, "PR_SET_DUMPABLE");
	return NULL;
}

struct err *sandbox_enter(const struct sandbox_limits *limits)
{
	struct sigaction action = {.sa_sigaction = on_forbidden, .sa_flags = SA_SIGINFO};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	(void)sigfillset(&action.sa_mask);
	if (sigaction(SIGSYS, &action, NULL))
		return err_os(errno, "sigaction SIGSYS");
	/* Past RLIMIT_FSIZE a write shall say EFBIG; a parent that is gone, EPIPE. */
	if (sigaction(SIGXFSZ, &ignore, NULL) || sigaction(SIGPIPE, &ignore, NULL))
		return err_os(errno, "sigaction");
	if (close_range((unsigned)limits->last_fd + 1, ~0u, 0))
		return err_os(errno, "close_range");
	if (!limits->has_one_thread)
		TRY(warm_allocator());
	TRY(process_flags());
	TRY(limit_all(limits));
	return filter_load();
}
