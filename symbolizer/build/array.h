// SPDX-License-Identifier: Apache-2.0
/*
 * Growing arrays of the builder, and the account that bounds what all of them hold together. An array is a struct with
 * `items`, `count` and `cap`; ARRAY_ROOM makes room for some more items, after which they are stored without a check.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_ARRAY_H
#define CAIRN_SYMBOLIZER_BUILD_ARRAY_H

#include "base/err.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Shared by all threads of a build; relaxed adds suffice, since only the sum matters. */
struct account {
	_Atomic uint64_t held; /* bytes */
	uint64_t max;	       /* 0: unbounded */
};

/** Takes @p bytes from the account. ERR_LIMIT past the maximum. Any thread. */
struct err *account_take(struct account *account, uint64_t bytes) MUST_USE;
static inline void account_give(struct account *account, uint64_t bytes)
{
	atomic_fetch_sub_explicit(&account->held, bytes, memory_order_relaxed);
}

/** Takes what a buffer (struct buf and the like) has grown from @p before to @p after bytes of room; it is given back when freed. */
static inline struct err *account_grown(struct account *account, size_t before, size_t after)
{
	return after > before ? account_take(account, after - before) : NULL;
}

/** Grows *items (malloc'd) from *cap to at least @p need items of @p size bytes, doubling. ERR_NOMEM, ERR_LIMIT. */
struct err *array_grow(struct account *account, void *items, size_t *cap, size_t need, size_t size) MUST_USE;
/** Frees *items and gives its bytes back. */
void array_free(struct account *account, void *items, size_t *cap, size_t size);
/** Cuts *items down to @p count items, for arrays that are kept. Cannot fail: a shrink that fails leaves it as it is. */
void array_trim(struct account *account, void *items, size_t *cap, size_t count, size_t size);

#define ARRAY_OF(type)                                                                             \
	{                                                                                          \
		type *items;                                                                       \
		size_t count;                                                                      \
		size_t cap;                                                                        \
	}

/* Room for @p extra more items: `TRY(ARRAY_ROOM(account, &array, 1)); array.items[array.count++] = x;` */
#define ARRAY_ROOM(account, array, extra)                                                          \
	(__builtin_expect((array)->cap - (array)->count >= (extra), 1)                             \
			? NULL                                                                     \
			: array_grow((account), &(array)->items, &(array)->cap, (array)->count + (extra), \
				  sizeof(*(array)->items)))

#define ARRAY_DEINIT(account, array)                                                               \
	do {                                                                                       \
		array_free((account), &(array)->items, &(array)->cap, sizeof(*(array)->items));    \
		(array)->count = 0;                                                                \
	} while (0)

#define ARRAY_TRIM(account, array)                                                                 \
	array_trim((account), &(array)->items, &(array)->cap, (array)->count, sizeof(*(array)->items))

#endif
