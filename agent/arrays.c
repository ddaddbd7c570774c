// SPDX-License-Identifier: Apache-2.0
#include "agent/arrays.h"

bool arrays_take(const struct tables_arrays *arrays, enum tables_growing which, struct ranges *ranges, uint32_t count, uint64_t now_ms,
	uint32_t *first_ret)
{
	if (!ranges_take(ranges, count, now_ms, first_ret))
		return false;
	if (!arrays->grow || arrays->grow(arrays->context, which, *first_ret + count) == 0)
		return true;
	err_free(ranges_give(ranges, *first_ret, count, 0));
	return false;
}

void arrays_shrink(const struct tables_arrays *arrays, enum tables_growing which, struct ranges *ranges, uint64_t now_ms)
{
	if (arrays->shrink)
		arrays->shrink(arrays->context, which, ranges_end(ranges, now_ms));
}
