// SPDX-License-Identifier: Apache-2.0
/*
 * A dummy software event that counts nothing and reports mmap2 (executable ones only), comm with its exec mark, fork and
 * exit. Records are u32 type, u16 misc, u16 size, then for all of these a u32 pid first; fork and exit have the parent's pid
 * next and then the thread's. A record may wrap at the ring's end.
 */
#include "agent/events.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The head of all records that we look at. */
struct record {
	struct perf_event_header header;
	uint32_t ids[4];
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

struct err *events_open(int cpu, struct events *ret)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY, .mmap = 1,
		.mmap2 = 1, .comm = 1, .comm_exec = 1, .task = 1, .sample_id_all = 0, .watermark = 1,
		.wakeup_watermark = (uint32_t)(EVENTS_RING_PAGES * page_bytes())};
	int fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		return err_os(errno, "perf event for processes on CPU %d", cpu);
	void *ring = mmap(NULL, (EVENTS_RING_PAGES + 1) * page_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED) {
		int error = errno;
		(void)close(fd);
		return err_os(error, "ring of the perf event for processes on CPU %d", cpu);
	}
	*ret = (struct events){.fd = fd, .ring = ring};
	return NULL;
}

void events_close(struct events *events)
{
	if (events->ring)
		(void)munmap(events->ring, (EVENTS_RING_PAGES + 1) * page_bytes());
	if (events->fd > 0)
		(void)close(events->fd);
	*events = (struct events){0};
}

static void copy_out(const struct events *events, uint64_t at, void *to, size_t len)
{
	const uint8_t *data = (const uint8_t *)events->ring + page_bytes();
	uint64_t mask = EVENTS_RING_PAGES * page_bytes() - 1;

	for (size_t i = 0; i < len; i++)
		((uint8_t *)to)[i] = data[(at + i) & mask];
}

static struct err *hand_out(const struct record *record, const struct events_handler *handler)
{
	switch (record->header.type) {
	case PERF_RECORD_MMAP2:
	case PERF_RECORD_MMAP:
		return handler->changed(handler->context, record->ids[0]);
	case PERF_RECORD_COMM:
		return record->header.misc & PERF_RECORD_MISC_COMM_EXEC ? handler->changed(handler->context, record->ids[0]) : NULL;
	case PERF_RECORD_FORK: /* pid, ppid, tid, ptid: threads share what is known */
		return record->ids[0] != record->ids[1] ? handler->changed(handler->context, record->ids[0]) : NULL;
	case PERF_RECORD_EXIT:
		return record->ids[0] == record->ids[2] ? handler->gone(handler->context, record->ids[0]) : NULL;
	case PERF_RECORD_LOST: { /* u64 id, u64 lost */
		uint64_t lost = 0;
		memcpy(&lost, &record->ids[2], sizeof(lost));
		return handler->lost(handler->context, lost);
	}
	default:
		return NULL;
	}
}

struct err *events_read(struct events *events, const struct events_handler *handler)
{
	struct perf_event_mmap_page *control = events->ring;
	/* Acquire: the records up to head were written before it; release: we have read them before the place is given back. */
	uint64_t head = __atomic_load_n(&control->data_head, __ATOMIC_ACQUIRE), tail = control->data_tail;
	struct err *e = NULL;

	while (!e && tail < head) {
		struct record record = {0};
		copy_out(events, tail, &record.header, sizeof(record.header));
		if (record.header.size < sizeof(record.header))
			break;
		size_t len = record.header.size < sizeof(record) ? record.header.size : sizeof(record);
		copy_out(events, tail, &record, len);
		e = hand_out(&record, handler);
		tail += record.header.size;
	}
	__atomic_store_n(&control->data_tail, head, __ATOMIC_RELEASE);
	return e;
}
