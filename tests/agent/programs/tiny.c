// SPDX-License-Identifier: Apache-2.0
/*
 * A process that costs next to nothing: no C library, no dynamic linker, half a millisecond of work, gone. Built with
 * -static -nostdlib -fno-stack-protector; with -DSPIN it does not end by itself; also for i386 and x32.
 */
static volatile long sink;

static __attribute__((noinline)) long work(long count)
{
	for (long i = 0; i < count; i++)
		sink += i;
	return sink;
}

static __attribute__((noinline)) long short_life(long count)
{
	return work(count) + sink;
}

void _start(void);
void _start(void)
{
	long status = short_life(300000) == 1;

#ifdef SPIN
	for (;;)
		status += short_life(status);
#endif
#if defined(__i386__)
	__asm__ volatile("int $0x80" : : "a"(1L), "b"(status) : "memory"); /* exit */
#elif defined(__ILP32__)
	__asm__ volatile("syscall" : : "a"(0x4000003cL), "D"(status) : "rcx", "r11", "memory");
#else
	__asm__ volatile("syscall" : : "a"(60L), "D"(status) : "rcx", "r11", "memory");
#endif
	__builtin_unreachable();
}
