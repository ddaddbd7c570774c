// SPDX-License-Identifier: Apache-2.0
/*
 * An executable's life: added (its head is read here, so that addresses can be told; its table is pending) -> built by
 * cairn-unwind and copied, piece by piece, from the result into the arrays -> unused -> evicted when place is wanted, forgotten
 * after EXES_IDLE_MS. Whatever goes wrong with one leaves it to frame pointers, counted, with the reason in the log.
 *
 * Infos in a result are numbered by its own list; here each becomes one of the infos that all executables share. Order of
 * writing: infos, deltas, pages, then the executable, so that the kernel never follows a number that is not there yet.
 *
 * When an executable has next to no call frame information, its separate debug file is looked for (exe_files.h), and
 * cairn-unwind runs a second time with both.
 */
#include "agent/exes.h"

#include "agent/builder.h"
#include "agent/exe_files.h"
#include "agent/ranges.h"
#include "base/digest.h"
#include "base/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK_BYTES = 16384 };

enum state {
	STATE_FREE,
	STATE_PENDING,
	STATE_READY,   /* with deltas, or without: frame pointers */
	STATE_EVICTED, /* its deltas made place; the number stands */
};

struct slot {
	enum state state;
	struct exe_key key;
	struct tables_exe exe;
	uint32_t references; /* mappings of known processes */
	uint64_t idle_since_ms;
	uint32_t first_page, page_count, first_delta, delta_count;
	int fd;	       /* while pending */
	uint32_t pid;  /* that it was seen in */
	char *path;    /* while pending */
};

struct exes {
	const struct tables_arrays *arrays;
	struct builder *builder;
	struct unwind_infos infos;
	struct ranges pages, deltas;
	struct slot *slots; /* UNWIND_EXES_MAX; number 0 is none */
	struct hmap index;  /* digest of the key -> number */
	uint32_t top;	    /* numbers above were never given out */
	uint32_t queue[EXES_PENDING_MAX]; /* a ring of pending numbers; the first may be under way */
	uint32_t head, pending;
	bool head_has_debug; /* the run under way has its debug file */
	struct exes_counters counters;
};

/* ---- Creation ---- */

static struct err *init(struct exes *x, const struct tables_arrays *arrays, const char *program)
{
	x->arrays = arrays;
	x->top = 1;
	TRY(unwind_infos_init(&x->infos));
	TRY(ranges_init(&x->pages, arrays->page_count));
	TRY(ranges_init(&x->deltas, arrays->delta_count));
	x->slots = calloc(UNWIND_EXES_MAX, sizeof(*x->slots));
	if (!x->slots)
		return err_nomem();
	TRY(builder_create(program, &x->builder));
	memcpy(arrays->infos, x->infos.items, x->infos.count * sizeof(*x->infos.items));
	/* Executable 0 stands for those that had to wait. */
	arrays->exes[0] = (struct unwind_exe){.otherwise = UNWIND_PENDING};
	return NULL;
}

struct err *exes_create(const struct tables_arrays *arrays, const char *program, struct exes **ret)
{
	struct exes *x = calloc(1, sizeof(*x));

	if (!x)
		return err_nomem();
	struct err *e = init(x, arrays, program);
	if (e) {
		exes_destroy(x);
		return e;
	}
	*ret = x;
	return NULL;
}

static void end_pending(struct slot *slot)
{
	closep(&slot->fd);
	slot->fd = -1;
	free(slot->path);
	slot->path = NULL;
}

void exes_destroy(struct exes *x)
{
	if (!x)
		return;
	builder_destroy(x->builder);
	for (uint32_t i = 1; i < x->top; i++)
		if (x->slots[i].state == STATE_PENDING)
			end_pending(&x->slots[i]);
	unwind_infos_deinit(&x->infos);
	ranges_deinit(&x->pages);
	ranges_deinit(&x->deltas);
	hmap_deinit(&x->index);
	free(x->slots);
	free(x);
}

/* ---- Numbers ---- */

static uint64_t digest_of(const struct exe_key *key)
{
	return digest_xxh3_64(key, sizeof(*key));
}

static void show_exe(struct exes *x, uint32_t number, struct unwind_exe exe)
{
	x->arrays->exes[number] = exe;
}

uint32_t exes_find(struct exes *x, const struct exe_key *key)
{
	uint64_t number = 0;

	if (!hmap_get(&x->index, digest_of(key), &number) || memcmp(&x->slots[number].key, key, sizeof(*key)) != 0 ||
		x->slots[number].state == STATE_EVICTED)
		return 0;
	x->counters.hits++;
	return (uint32_t)number;
}

const struct tables_exe *exes_at(const struct exes *x, uint32_t number)
{
	return number > 0 && number < x->top && x->slots[number].state != STATE_FREE ? &x->slots[number].exe : NULL;
}

void exes_hold(struct exes *x, uint32_t number)
{
	x->slots[number].references++;
}

void exes_release(struct exes *x, uint32_t number, uint64_t now_ms)
{
	struct slot *slot = &x->slots[number];

	if (--slot->references == 0)
		slot->idle_since_ms = now_ms;
}

static uint32_t free_number(const struct exes *x)
{
	if (x->top < UNWIND_EXES_MAX)
		return x->top;
	for (uint32_t i = 1; i < UNWIND_EXES_MAX; i++)
		if (x->slots[i].state == STATE_FREE)
			return i;
	return 0;
}

static void set_name(struct tables_exe *exe, const char *path)
{
	static const char suffix[] = " (deleted)";
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t len = strlen(name);

	if (len >= sizeof(suffix) && strcmp(name + len - (sizeof(suffix) - 1), suffix) == 0)
		len -= sizeof(suffix) - 1;
	snprintf(exe->name, sizeof(exe->name), "%.*s", (int)(len < sizeof(exe->name) ? len : sizeof(exe->name) - 1), name);
}

/** What the agent reads itself of a file: its ID and its head. */
static struct err *identify(int fd, uint64_t size, struct tables_exe *exe)
{
	struct unwind_source source = {.fd = fd, .len = size, .name = exe->name};
	struct unwind_elf elf;

	TRY(fileid_from_fd(fd, &exe->file_id));
	TRY(unwind_elf_read_head(&source, &elf));
	exe->segments = elf.segments;
	exe->build_id = elf.build_id;
	return NULL;
}

bool exes_is_busy(const struct exes *x)
{
	return x->pending == EXES_PENDING_MAX;
}

static void log_refused(const struct slot *slot, const char *reason)
{
	log_debug("unwind-table", "file=%s by_frame_pointers=\"%s\"", slot->exe.name, reason);
}

/** The slot for a key: that of an evicted table, or a new one; 0: none. */
static uint32_t slot_for(struct exes *x, const struct exe_key *key)
{
	uint64_t known = 0;

	if (hmap_get(&x->index, digest_of(key), &known) && memcmp(&x->slots[known].key, key, sizeof(*key)) == 0)
		return (uint32_t)known;
	return free_number(x);
}

struct err *exes_add(struct exes *x, const struct exe_key *key, int take_fd_, const char *path, uint32_t pid, uint32_t *ret)
{
	CLEANUP(closep) int fd = take_fd_;
	uint32_t number = slot_for(x, key);

	*ret = 0;
	if (number == 0)
		x->counters.full++;
	if (number == 0 || exes_is_busy(x))
		return NULL;
	struct slot *slot = &x->slots[number];
	uint32_t references = slot->references;
	*slot = (struct slot){.state = STATE_READY, .key = *key, .references = references, .fd = -1, .pid = pid};
	set_name(&slot->exe, path);
	struct err *e = identify(fd, key->size, &slot->exe);
	enum err_code code = e ? err_code(e) : ERR_INTERNAL;
	struct unwind_exe shown = {.otherwise = e ? UNWIND_FRAME_POINTER : UNWIND_PENDING};
	if (e) {
		x->counters.refused++;
		log_refused(slot, err_message(e));
		err_free(e);
		if (code == ERR_NOMEM)
			return err_nomem();
	} else {
		slot->path = strdup(path);
		if (!slot->path)
			return err_nomem();
		slot->fd = take_fd(&fd);
		slot->state = STATE_PENDING;
		x->queue[(x->head + x->pending++) % EXES_PENDING_MAX] = number;
	}
	TRY(hmap_set(&x->index, digest_of(key), number));
	show_exe(x, number, shown);
	x->top += number == x->top;
	x->counters.added++;
	x->counters.count++;
	*ret = number;
	return NULL;
}

/* ---- Places ---- */

static void give_places(struct exes *x, struct slot *slot, uint64_t free_at_ms)
{
	err_free(ranges_give(&x->pages, slot->first_page, slot->page_count, free_at_ms));
	err_free(ranges_give(&x->deltas, slot->first_delta, slot->delta_count, free_at_ms));
	x->counters.pages -= slot->page_count;
	x->counters.deltas -= slot->delta_count;
	slot->page_count = slot->delta_count = 0;
	slot->exe.has_deltas = false;
}

/** Takes the table of the executable that was unused longest. False: all are in use. */
static bool evict_one(struct exes *x, uint64_t now_ms)
{
	struct slot *oldest = NULL;
	uint32_t number = 0;

	for (uint32_t i = 1; i < x->top; i++) {
		struct slot *slot = &x->slots[i];
		if (slot->state != STATE_READY || slot->references > 0 || slot->delta_count == 0)
			continue;
		if (!oldest || slot->idle_since_ms < oldest->idle_since_ms) {
			oldest = slot;
			number = i;
		}
	}
	if (!oldest)
		return false;
	show_exe(x, number, (struct unwind_exe){.otherwise = UNWIND_PENDING});
	give_places(x, oldest, now_ms); /* no process maps it: nobody reads there */
	oldest->state = STATE_EVICTED;
	x->counters.evicted++;
	return true;
}

static bool take_places(struct exes *x, struct slot *slot, const struct unwind_result *head, uint64_t now_ms)
{
	do {
		if (!arrays_take(x->arrays, TABLES_PAGES, &x->pages, head->page_count, now_ms, &slot->first_page))
			continue;
		if (arrays_take(x->arrays, TABLES_DELTAS, &x->deltas, head->delta_count, now_ms, &slot->first_delta)) {
			slot->page_count = head->page_count;
			slot->delta_count = head->delta_count;
			x->counters.pages += head->page_count;
			x->counters.deltas += head->delta_count;
			return true;
		}
		err_free(ranges_give(&x->pages, slot->first_page, head->page_count, now_ms));
	} while (evict_one(x, now_ms));
	return false;
}

/* ---- From the result into the arrays ---- */

struct copy {
	struct exes *x;
	struct slot *slot;
	const struct builder_report *report;
	uint16_t none; /* what UNWIND_NONE becomes */
	uint16_t *numbers; /* of the result's infos */
	uint8_t chunk[CHUNK_BYTES] __attribute__((aligned(8)));
};

static bool is_sound(const struct unwind_info *info)
{
	bool cfa = info->cfa == UNWIND_CFA_REG || info->cfa == UNWIND_CFA_DEREF || info->cfa == UNWIND_CFA_PLT;

	return cfa && info->cfa_reg < UNWIND_REGS && info->fp <= UNWIND_RULE_REG && info->fp_reg < UNWIND_REGS &&
	       info->ra <= UNWIND_RULE_REG && info->ra_reg < UNWIND_REGS && info->bx <= UNWIND_RULE_REG && info->flags <= (UNWIND_SIGNAL | UNWIND_SWITCH);
}

static struct err *copy_infos(struct copy *c)
{
	const struct unwind_result *head = &c->report->head;
	struct unwind_info *items = (struct unwind_info *)(void *)c->chunk;
	const uint32_t cap = sizeof(c->chunk) / sizeof(*items);
	uint32_t known = c->x->infos.count;

	for (uint32_t first = 0; first < head->info_count; first += cap) {
		uint32_t count = head->info_count - first < cap ? head->info_count - first : cap;
		TRY(unwind_result_infos(c->report->result_fd, head, first, count, items));
		for (uint32_t i = 0; i < count; i++) {
			if (!is_sound(&items[i]))
				return err_new(ERR_FORMAT, "result: info %u makes no sense", first + i);
			TRY(unwind_infos_number(&c->x->infos, &items[i], &c->numbers[first + i]));
		}
	}
	memcpy(c->x->arrays->infos + known, c->x->infos.items + known, (c->x->infos.count - known) * sizeof(*items));
	return NULL;
}

static struct err *copy_deltas(struct copy *c)
{
	const struct unwind_result *head = &c->report->head;
	struct unwind_delta *items = (struct unwind_delta *)(void *)c->chunk;
	const uint32_t cap = sizeof(c->chunk) / sizeof(*items);

	for (uint32_t first = 0; first < head->delta_count; first += cap) {
		uint32_t count = head->delta_count - first < cap ? head->delta_count - first : cap;
		TRY(unwind_result_deltas(c->report->result_fd, head, first, count, items));
		for (uint32_t i = 0; i < count; i++) {
			uint32_t info = items[i].info;
			if (info >= UNWIND_COMMANDS + head->info_count)
				return err_new(ERR_FORMAT, "result: delta %u has info %u of %u", first + i, info, head->info_count);
			if (info >= UNWIND_COMMANDS)
				items[i].info = c->numbers[info - UNWIND_COMMANDS];
			else if (info == UNWIND_NONE)
				items[i].info = c->none;
		}
		memcpy(c->x->arrays->deltas + c->slot->first_delta + first, items, count * sizeof(*items));
	}
	return NULL;
}

static struct err *copy_pages(struct copy *c)
{
	const struct unwind_result *head = &c->report->head;
	struct unwind_page *items = (struct unwind_page *)(void *)c->chunk;
	const uint32_t cap = sizeof(c->chunk) / sizeof(*items);

	for (uint32_t first = 0; first < head->page_count; first += cap) {
		uint32_t count = head->page_count - first < cap ? head->page_count - first : cap;
		TRY(unwind_result_pages(c->report->result_fd, head, first, count, items));
		for (uint32_t i = 0; i < count; i++) {
			if (items[i].first > head->delta_count || items[i].count > head->delta_count - items[i].first)
				return err_new(ERR_FORMAT, "result: page %u has deltas %u to %u of %u", first + i, items[i].first,
					items[i].first + items[i].count, head->delta_count);
			items[i].first += c->slot->first_delta;
		}
		memcpy(c->x->arrays->pages + c->slot->first_page + first, items, count * sizeof(*items));
	}
	return NULL;
}

static struct err *copy_all(struct copy *c)
{
	TRY(copy_infos(c));
	TRY(copy_deltas(c));
	return copy_pages(c);
}

/** The result's table into its places. */
static struct err *copy_table(struct exes *x, struct slot *slot, const struct builder_report *report, uint16_t none)
{
	struct copy *c = malloc(sizeof(*c));

	if (!c)
		return err_nomem();
	*c = (struct copy){.x = x, .slot = slot, .report = report, .none = none,
		.numbers = calloc(report->head.info_count + 1, sizeof(*c->numbers))};
	struct err *e = c->numbers ? copy_all(c) : err_nomem();
	free(c->numbers);
	free(c);
	return e;
}

/* ---- The queue ---- */

static struct err *place(struct exes *x, uint32_t number, const struct builder_report *report, uint64_t now_ms)
{
	struct slot *slot = &x->slots[number];
	const struct unwind_result *head = &report->head;
	/* Where a file hardly says anything, the code that it says nothing of is not padding. */
	uint16_t none = head->outcome == UNWIND_NEEDS_DEBUG ? UNWIND_FRAME_POINTER : UNWIND_NONE;
	struct unwind_exe shown = {.otherwise = head->delta_count > 0 ? none : UNWIND_FRAME_POINTER};

	slot->exe.rows_unsupported = head->rows_unsupported;
	if (head->delta_count > 0 && !take_places(x, slot, head, now_ms)) {
		x->counters.full++;
		log_refused(slot, "no place is left for its table");
		shown.otherwise = UNWIND_FRAME_POINTER;
	} else if (head->delta_count > 0) {
		struct err *e = copy_table(x, slot, report, none);
		if (e) {
			give_places(x, slot, now_ms);
			show_exe(x, number, (struct unwind_exe){.otherwise = UNWIND_FRAME_POINTER});
			return e;
		}
		slot->exe.has_deltas = true;
		shown.page_base = head->page_base;
		shown.first_page = slot->first_page;
		shown.page_count = slot->page_count;
	}
	show_exe(x, number, shown);
	return NULL;
}

/** Runs cairn-unwind again with the debug file of the first in the queue. False: there is none. */
static bool try_debug_file(struct exes *x, const struct unwind_result *head, uint64_t now_ms)
{
	struct slot *slot = &x->slots[x->queue[x->head]];

	if (x->head_has_debug || head->outcome != UNWIND_NEEDS_DEBUG)
		return false;
	CLEANUP(closep) int fd = exe_files_open_debug(slot->pid, slot->path, &slot->exe.build_id, head->debuglink);
	if (fd < 0)
		return false;
	struct err *e = builder_start(x->builder, slot->fd, fd, now_ms);
	x->head_has_debug = !e;
	x->counters.debug_files += !e;
	err_free(e);
	return x->head_has_debug;
}

/** What became of the first in the queue. */
static struct err *finish(struct exes *x, const struct builder_report *report, uint64_t now_ms)
{
	uint32_t number = x->queue[x->head];
	struct slot *slot = &x->slots[number];
	struct err *e = NULL;

	x->counters.build_ns += report->cpu_ns;
	if (report->peak_rss_bytes > x->counters.build_peak_bytes)
		x->counters.build_peak_bytes = report->peak_rss_bytes;
	if (report->outcome == BUILDER_DONE && try_debug_file(x, &report->head, now_ms))
		return NULL;
	if (report->outcome == BUILDER_DONE)
		e = place(x, number, report, now_ms);
	if (e || report->outcome != BUILDER_DONE) {
		uint64_t *const counters[BUILDER_OUTCOMES] = {
			&x->counters.crashed, &x->counters.refused, &x->counters.crashed, &x->counters.late};
		++*counters[report->outcome];
		log_refused(slot, e ? err_message(e) : report->reason);
		show_exe(x, number, (struct unwind_exe){.otherwise = UNWIND_FRAME_POINTER});
	}
	x->counters.infos_dropped = x->infos.dropped;
	end_pending(slot);
	slot->state = STATE_READY;
	slot->idle_since_ms = now_ms;
	x->head = (x->head + 1) % EXES_PENDING_MAX;
	x->pending--;
	x->head_has_debug = false;
	if (e && err_code(e) == ERR_NOMEM)
		return e;
	err_free(e);
	return NULL;
}

struct err *exes_work(struct exes *x, uint64_t now_ms)
{
	struct builder_report report;

	if (builder_poll(x->builder, now_ms, &report))
		TRY(finish(x, &report, now_ms));
	if (x->pending == 0 || builder_busy(x->builder))
		return NULL;
	return builder_start(x->builder, x->slots[x->queue[x->head]].fd, -1, now_ms);
}

void exes_want(struct exes *x, uint32_t number)
{
	for (uint32_t i = 2; i < x->pending; i++) { /* the first may be under way */
		uint32_t *at = &x->queue[(x->head + i) % EXES_PENDING_MAX], *next = &x->queue[(x->head + 1) % EXES_PENDING_MAX];
		if (*at != number)
			continue;
		*at = *next;
		*next = number;
		return;
	}
}

uint32_t exes_pending(const struct exes *x)
{
	return x->pending;
}

void exes_trim(struct exes *x, uint64_t now_ms)
{
	for (uint32_t i = 1; i < x->top; i++) {
		struct slot *slot = &x->slots[i];
		bool done = slot->state == STATE_READY || slot->state == STATE_EVICTED;
		if (!done || slot->references > 0 || now_ms - slot->idle_since_ms < EXES_IDLE_MS)
			continue;
		show_exe(x, i, (struct unwind_exe){.otherwise = UNWIND_PENDING});
		give_places(x, slot, now_ms + EXES_QUARANTINE_MS);
		(void)hmap_remove(&x->index, digest_of(&slot->key));
		slot->state = STATE_FREE;
		x->counters.count--;
	}
	arrays_shrink(x->arrays, TABLES_PAGES, &x->pages, now_ms);
	arrays_shrink(x->arrays, TABLES_DELTAS, &x->deltas, now_ms);
}

void exes_counters(const struct exes *x, struct exes_counters *ret)
{
	*ret = x->counters;
	ret->pending = x->pending;
}
