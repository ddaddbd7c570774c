// SPDX-License-Identifier: Apache-2.0
/*
 * Scope-bound cleanup: a variable declared with CLEANUP(fn) is passed, by address, to fn when it
 * leaves scope; TAKE_PTR(p) hands its value on and leaves NULL behind, so that nothing is freed twice.
 */
#ifndef CAIRN_BASE_CLEANUP_H
#define CAIRN_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define MUST_USE __attribute__((warn_unused_result))

#define TAKE_PTR(p)                                                                                \
	__extension__({                                                                            \
		__typeof__(p) take_ptr_ = (p);                                                     \
		(p) = NULL;                                                                        \
		take_ptr_;                                                                         \
	})

/** Hands a descriptor on and leaves -1 behind. */
static inline int take_fd(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

/** For CLEANUP on any malloc'd pointer. */
static inline void freep(void *pointer)
{
	free(*(void **)pointer);
}

/** For CLEANUP on a descriptor; -1 is ignored. */
static inline void closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
