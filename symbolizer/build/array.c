// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/array.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ARRAY_MIN_ITEMS = 16 };

struct err *account_take(struct account *account, uint64_t bytes)
{
	uint64_t held = atomic_fetch_add_explicit(&account->held, bytes, memory_order_relaxed) + bytes;

	if (account->max == 0 || held <= account->max)
		return NULL;
	account_give(account, bytes);
	return err_new(ERR_LIMIT, "the build needs more than %" PRIu64 " bytes of memory", account->max);
}

struct err *array_grow(struct account *account, void *items, size_t *cap, size_t need, size_t size)
{
	size_t count = *cap ? *cap : ARRAY_MIN_ITEMS;
	void *old;

	while (count < need && count <= SIZE_MAX / 2)
		count *= 2;
	if (count < need || count > (SIZE_MAX >> 1) / size)
		return err_nomem();
	TRY(account_take(account, (count - *cap) * size));
	memcpy(&old, items, sizeof(old));
	void *grown = realloc(old, count * size);
	if (!grown) {
		account_give(account, (count - *cap) * size);
		return err_nomem();
	}
	memcpy(items, &grown, sizeof(grown));
	*cap = count;
	return NULL;
}

void array_free(struct account *account, void *items, size_t *cap, size_t size)
{
	void *old;

	memcpy(&old, items, sizeof(old));
	free(old);
	old = NULL;
	memcpy(items, &old, sizeof(old));
	account_give(account, *cap * size);
	*cap = 0;
}

void array_trim(struct account *account, void *items, size_t *cap, size_t count, size_t size)
{
	void *old;

	if (count == *cap)
		return;
	if (count == 0) {
		array_free(account, items, cap, size);
		return;
	}
	memcpy(&old, items, sizeof(old));
	void *trimmed = realloc(old, count * size);
	if (!trimmed)
		return;
	memcpy(items, &trimmed, sizeof(trimmed));
	account_give(account, (*cap - count) * size);
	*cap = count;
}
