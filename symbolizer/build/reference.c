// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/build/reference.h"

#include <stdarg.h>
#include <stdio.h>

struct err *reference_text(struct reference *reference, const char *text, uint32_t *ret)
{
	return intern_add(&reference->text, text, strlen(text), ret);
}

void reference_failed(struct reference *reference, const char *format, ...)
{
	va_list args;

	if (reference->failures++ > 0)
		return;
	va_start(args, format);
	(void)vsnprintf(reference->failure, sizeof(reference->failure), format, args);
	va_end(args);
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int compare_ranges(const void *left, const void *right)
{
	const struct reference_range *a = left, *b = right;
	int order = compare_u64(a->low, b->low);

	return order ? order : compare_u64(a->node, b->node);
}

static int compare_sequences(const void *left, const void *right)
{
	const struct reference_sequence *a = left, *b = right;
	int order = compare_u64(a->low, b->low);

	return order ? order : compare_u64(a->first, b->first);
}

static int compare_symbols(const void *left, const void *right)
{
	const struct reference_symbol *a = left, *b = right;
	int order = compare_u64(a->low, b->low);

	return order ? order : compare_u64(a->name, b->name);
}

static void sort(void *items, size_t count, size_t size, int (*compare)(const void *, const void *))
{
	if (count > 1)
		qsort(items, count, size, compare);
}

void reference_sort(struct reference *reference)
{
	sort(reference->ranges.items, reference->ranges.count, sizeof(*reference->ranges.items), compare_ranges);
	sort(reference->sequences.items, reference->sequences.count, sizeof(*reference->sequences.items), compare_sequences);
	sort(reference->symbols.items, reference->symbols.count, sizeof(*reference->symbols.items), compare_symbols);
}

void reference_deinit(struct reference *reference)
{
	intern_deinit(&reference->text);
	ARRAY_DEINIT(&reference->account, &reference->functions);
	ARRAY_DEINIT(&reference->account, &reference->nodes);
	ARRAY_DEINIT(&reference->account, &reference->ranges);
	ARRAY_DEINIT(&reference->account, &reference->rows);
	ARRAY_DEINIT(&reference->account, &reference->sequences);
	ARRAY_DEINIT(&reference->account, &reference->symbols);
}
