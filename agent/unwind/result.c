// SPDX-License-Identifier: Apache-2.0
#include "agent/unwind/result.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err *write_at(int fd, const void *bytes, size_t len, uint64_t *foff)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)bytes + done, len - done, (off_t)(*foff + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_os(n < 0 ? errno : EIO, "result");
		done += (size_t)n;
	}
	*foff += len;
	return NULL;
}

struct err *unwind_result_write(int fd, const struct unwind_result *head, const struct unwind_table *table, const struct unwind_infos *infos)
{
	struct unwind_result out = *head;
	uint64_t foff = 0;

	out.magic = UNWIND_RESULT_MAGIC;
	if (!table)
		return write_at(fd, &out, sizeof(out), &foff);
	out.info_count = infos->count - UNWIND_COMMANDS;
	out.page_count = table->page_count;
	out.delta_count = table->delta_count;
	out.page_base = table->page_base;
	out.rows_unsupported = table->counts.rows_unsupported;
	if (table->delta_count > (UNWIND_RESULT_BYTES_MAX >> 3))
		return err_new(ERR_LIMIT, "%u deltas", table->delta_count);
	TRY(write_at(fd, &out, sizeof(out), &foff));
	TRY(write_at(fd, infos->items + UNWIND_COMMANDS, out.info_count * sizeof(*infos->items), &foff));
	TRY(write_at(fd, table->pages, table->page_count * sizeof(*table->pages), &foff));
	return write_at(fd, table->deltas, table->delta_count * sizeof(*table->deltas), &foff);
}

static struct err *read_at(int fd, void *bytes, size_t len, uint64_t foff)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)bytes + done, len - done, (off_t)(foff + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_os(errno, "result");
		if (n == 0)
			return err_new(ERR_FORMAT, "result: ends before 0x%llx", (unsigned long long)(foff + len));
		done += (size_t)n;
	}
	return NULL;
}

static uint64_t pages_foff(const struct unwind_result *head)
{
	return sizeof(*head) + (uint64_t)head->info_count * sizeof(struct unwind_info);
}

static uint64_t deltas_foff(const struct unwind_result *head)
{
	return pages_foff(head) + (uint64_t)head->page_count * sizeof(struct unwind_page);
}

struct err *unwind_result_read(int fd, struct unwind_result *ret)
{
	struct unwind_result head;
	struct stat st;

	if (fstat(fd, &st) != 0)
		return err_os(errno, "result");
	TRY(read_at(fd, &head, sizeof(head), 0));
	if (head.magic != UNWIND_RESULT_MAGIC || head.outcome < UNWIND_BUILT || head.outcome > UNWIND_REFUSED)
		return err_new(ERR_FORMAT, "result: not one");
	head.debuglink[sizeof(head.debuglink) - 1] = 0;
	head.reason[sizeof(head.reason) - 1] = 0;
	if (head.outcome == UNWIND_REFUSED)
		head.info_count = head.page_count = head.delta_count = 0;
	if (head.info_count > UNWIND_INFOS_MAX - UNWIND_COMMANDS || head.page_count > UNWIND_TABLE_PAGES_MAX ||
		deltas_foff(&head) + (uint64_t)head.delta_count * sizeof(struct unwind_delta) > (uint64_t)st.st_size)
		return err_new(ERR_FORMAT, "result: %u infos, %u pages, %u deltas in %lld bytes", head.info_count, head.page_count, head.delta_count,
			(long long)st.st_size);
	*ret = head;
	return NULL;
}

static struct err *read_items(int fd, uint64_t foff, uint32_t total, size_t size, uint32_t first, uint32_t count, void *items)
{
	if (first > total || count > total - first)
		return err_new(ERR_FORMAT, "result: items %u to %u of %u", first, first + count, total);
	return read_at(fd, items, count * size, foff + first * size);
}

struct err *unwind_result_infos(int fd, const struct unwind_result *head, uint32_t first, uint32_t count, struct unwind_info *items)
{
	return read_items(fd, sizeof(*head), head->info_count, sizeof(*items), first, count, items);
}

struct err *unwind_result_pages(int fd, const struct unwind_result *head, uint32_t first, uint32_t count, struct unwind_page *items)
{
	return read_items(fd, pages_foff(head), head->page_count, sizeof(*items), first, count, items);
}

struct err *unwind_result_deltas(int fd, const struct unwind_result *head, uint32_t first, uint32_t count, struct unwind_delta *items)
{
	return read_items(fd, deltas_foff(head), head->delta_count, sizeof(*items), first, count, items);
}
