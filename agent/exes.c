// SPDX-License-Identifier: Apache-2.0
/*
 * An executable's life: added (its head is read here, so that addresses can be told) -> wanted by a sample that cannot go on
 * without its table -> built by cairn-unwind and copied, piece by piece, from the result into the arrays -> unused -> evicted
 * when place is wanted (the next sample wants it again), forgotten after EXES_IDLE_MS. Most files that are mapped never hold a
 * sampled frame, so most tables are never made. Whatever goes wrong with one leaves it to frame pointers, counted, with the
 * reason in the log.
 *
 * Of those that wait the one that most samples want is next, within a share of the machine's CPU time (exes_limit); with such a
 * limit a large file's table (a compiler's library takes 0.2 s) is not made for one sample's sake.
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
	STATE_KNOWN,   /* its table was not wanted yet, or made place */
	STATE_PENDING, /* in the queue */
	STATE_READY,   /* with deltas, or without: frame pointers */
};

struct slot {
	enum state state;
	struct exe_key key;
	struct tables_exe exe;
	uint32_t references; /* mappings of known processes */
	uint64_t idle_since_ms;
	uint32_t first_page, page_count, first_delta, delta_count;
	int fd;		 /* while pending */
	uint32_t pid;	 /* that wants it: whose root holds its debug file */
	uint32_t wanted; /* samples that could not go on without it, ever */
	uint64_t pending_since_ms;
	char *path;
};

struct exes {
	const struct tables_arrays *arrays;
	struct builder *builder;
	struct unwind_infos infos;
	struct ranges pages, deltas;
	struct slot *slots; /* UNWIND_EXES_MAX; number 0 is none */
	struct hmap index;  /* digest of the key -> number */
	uint32_t top;	    /* numbers above were never given out */
	uint32_t queue[EXES_PENDING_MAX]; /* pending numbers, as they came; without the one under way */
	uint32_t queued;
	uint32_t building;   /* the number under way; 0: none */
	bool has_debug;	     /* .. with its debug file */
	uint64_t limit_ns_per_s, credit_max_ns, credited_ms, started_ms; /* exes_limit; 0: none */
	int64_t credit_ns;
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

static void close_file(struct slot *slot)
{
	closep(&slot->fd);
	slot->fd = -1;
}

static void forget_path(struct slot *slot)
{
	free(slot->path);
	slot->path = NULL;
}

void exes_destroy(struct exes *x)
{
	if (!x)
		return;
	builder_destroy(x->builder);
	for (uint32_t i = 1; i < x->top; i++) {
		if (x->slots[i].state == STATE_PENDING)
			close_file(&x->slots[i]);
		forget_path(&x->slots[i]);
	}
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

	if (!hmap_get(&x->index, digest_of(key), &number) || memcmp(&x->slots[number].key, key, sizeof(*key)) != 0)
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

static void log_refused(const struct slot *slot, const char *reason)
{
	log_debug("unwind-table", "file=%s by_frame_pointers=\"%s\"", slot->exe.name, reason);
}

struct err *exes_add(struct exes *x, const struct exe_key *key, int fd, const char *path, uint64_t now_ms, uint32_t *ret)
{
	uint32_t number = free_number(x);

	*ret = 0;
	if (number == 0) {
		x->counters.full++;
		return NULL;
	}
	struct slot *slot = &x->slots[number];
	*slot = (struct slot){.state = STATE_KNOWN, .key = *key, .fd = -1, .idle_since_ms = now_ms};
	set_name(&slot->exe, path);
	CLEANUP(err_freep) struct err *e = identify(fd, key->size, &slot->exe);
	slot->path = e ? NULL : strdup(path);
	if ((e && err_code(e) == ERR_NOMEM) || (!e && !slot->path)) {
		*slot = (struct slot){0};
		return err_nomem();
	}
	if (e) {
		x->counters.refused++;
		log_refused(slot, err_message(e));
		slot->state = STATE_READY;
	}
	x->top += number == x->top;
	TRY(hmap_set(&x->index, digest_of(key), number));
	show_exe(x, number, (struct unwind_exe){.otherwise = e ? UNWIND_FRAME_POINTER : UNWIND_PENDING});
	x->counters.added++;
	x->counters.count++;
	*ret = number;
	return NULL;
}

bool exes_needs_file(struct exes *x, uint32_t number)
{
	struct slot *slot = number > 0 && number < x->top ? &x->slots[number] : NULL;

	if (slot && (slot->state == STATE_PENDING || slot->state == STATE_KNOWN))
		slot->wanted++;
	return slot && slot->state == STATE_KNOWN;
}

const char *exes_path(const struct exes *x, uint32_t number)
{
	return x->slots[number].path;
}

/** Takes queue place @p at out; its file is closed, and it may be wanted again. */
static void drop_queued(struct exes *x, uint32_t at)
{
	struct slot *slot = &x->slots[x->queue[at]];

	close_file(slot);
	slot->state = STATE_KNOWN;
	x->queued--;
	memmove(&x->queue[at], &x->queue[at + 1], (x->queued - at) * sizeof(*x->queue));
	x->counters.dropped++;
}

bool exes_want(struct exes *x, uint32_t number, const struct exe_key *key, int take_fd_, uint32_t pid, uint64_t now_ms)
{
	CLEANUP(closep) int fd = take_fd_;
	struct slot *slot = &x->slots[number];

	if (memcmp(&slot->key, key, sizeof(*key)) != 0) {
		x->counters.replaced++;
		return false;
	}
	if (x->queued == EXES_PENDING_MAX && x->limit_ns_per_s == 0)
		return false;
	if (x->queued == EXES_PENDING_MAX) /* the one that has waited longest, in vain */
		drop_queued(x, 0);
	slot->fd = take_fd(&fd);
	slot->pid = pid;
	slot->pending_since_ms = now_ms;
	slot->state = STATE_PENDING;
	x->queue[x->queued++] = number;
	return true;
}

uint64_t exes_inode(const struct exes *x, uint32_t number)
{
	return x->slots[number].key.inode;
}

bool exes_is_pending(const struct exes *x, uint32_t number)
{
	return number > 0 && number < x->top && x->slots[number].state == STATE_PENDING;
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
	oldest->state = STATE_KNOWN;
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

/** Runs cairn-unwind again with the debug file of what is under way. False: there is none. */
static bool try_debug_file(struct exes *x, const struct unwind_result *head, uint64_t now_ms)
{
	struct slot *slot = &x->slots[x->building];

	if (x->has_debug || head->outcome != UNWIND_NEEDS_DEBUG)
		return false;
	CLEANUP(closep) int fd = exe_files_open_debug(slot->pid, slot->path, &slot->exe.build_id, head->debuglink);
	if (fd < 0)
		return false;
	struct err *e = builder_start(x->builder, slot->fd, fd, now_ms);
	x->has_debug = !e;
	x->counters.debug_files += !e;
	err_free(e);
	return x->has_debug;
}

/** What became of the one under way. */
static struct err *finish(struct exes *x, const struct builder_report *report, uint64_t now_ms)
{
	uint32_t number = x->building;
	struct slot *slot = &x->slots[number];
	struct err *e = NULL;

	log_debug("unwind-table", "file=%s outcome=%d cpu_us=%" PRIu64 " wanted=%u", slot->exe.name, report->outcome, report->cpu_ns / 1000, slot->wanted);
	x->counters.built++;
	x->counters.build_ns += report->cpu_ns;
	x->credit_ns -= (int64_t)report->cpu_ns;
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
	close_file(slot);
	slot->state = STATE_READY;
	slot->wanted = 0;
	slot->idle_since_ms = now_ms;
	x->building = 0;
	x->has_debug = false;
	if (e && err_code(e) == ERR_NOMEM)
		return e;
	err_free(e);
	return NULL;
}

void exes_limit(struct exes *x, uint64_t ns_per_s, uint64_t first_ns, uint64_t max_ns)
{
	x->limit_ns_per_s = ns_per_s;
	x->credit_max_ns = max_ns;
	x->credit_ns = (int64_t)first_ns;
	x->credited_ms = 0;
}

/** Credit of CPU time grows with the clock up to a most. What the start was given beyond that is good for EXES_START_MS. */
static bool has_credit(struct exes *x, uint64_t now_ms)
{
	if (x->limit_ns_per_s == 0)
		return true;
	if (x->credited_ms == 0)
		x->started_ms = x->credited_ms = now_ms;
	x->credit_ns += (int64_t)((now_ms - x->credited_ms) * x->limit_ns_per_s / 1000);
	if (now_ms - x->started_ms >= EXES_START_MS && x->credit_ns > (int64_t)x->credit_max_ns)
		x->credit_ns = (int64_t)x->credit_max_ns;
	x->credited_ms = now_ms;
	return x->credit_ns > 0;
}

/** Whether so many samples want it that it is worth its making, which grows with the file. */
static bool is_worth(const struct exes *x, const struct slot *slot)
{
	return x->limit_ns_per_s == 0 || slot->key.size / EXES_SAMPLE_BYTES <= slot->wanted;
}

/** Takes the number that most samples want out of the queue. 0: none is worth it yet. */
static uint32_t take_most_wanted(struct exes *x)
{
	uint32_t best = 0, number = 0;

	for (uint32_t i = 0; i < x->queued; i++) {
		const struct slot *slot = &x->slots[x->queue[i]];
		if (!is_worth(x, slot) || (number && slot->wanted <= x->slots[number].wanted))
			continue;
		best = i;
		number = x->queue[i];
	}
	if (number) {
		x->queued--;
		memmove(&x->queue[best], &x->queue[best + 1], (x->queued - best) * sizeof(*x->queue));
	}
	return number;
}

struct err *exes_work(struct exes *x, uint64_t now_ms)
{
	struct builder_report report;

	if (builder_poll(x->builder, now_ms, &report))
		TRY(finish(x, &report, now_ms));
	if (builder_busy(x->builder))
		return NULL;
	bool has = has_credit(x, now_ms);
	if (x->queued == 0)
		return NULL;
	if (!has) {
		x->counters.turns_without_credit++;
		return NULL;
	}
	x->building = take_most_wanted(x);
	return x->building ? builder_start(x->builder, x->slots[x->building].fd, -1, now_ms) : NULL;
}

uint32_t exes_pending(const struct exes *x)
{
	return x->queued + (x->building != 0);
}

void exes_trim(struct exes *x, uint64_t now_ms)
{
	/* Nobody's file is held open for long. */
	for (uint32_t i = x->limit_ns_per_s ? x->queued : 0; i-- > 0;)
		if (now_ms - x->slots[x->queue[i]].pending_since_ms >= EXES_PENDING_MS)
			drop_queued(x, i);
	for (uint32_t i = 1; i < x->top; i++) {
		struct slot *slot = &x->slots[i];
		bool done = slot->state == STATE_READY || slot->state == STATE_KNOWN;
		if (!done || slot->references > 0 || now_ms - slot->idle_since_ms < EXES_IDLE_MS)
			continue;
		show_exe(x, i, (struct unwind_exe){.otherwise = UNWIND_PENDING});
		give_places(x, slot, now_ms + EXES_QUARANTINE_MS);
		(void)hmap_remove(&x->index, digest_of(&slot->key));
		forget_path(slot);
		slot->state = STATE_FREE;
		x->counters.count--;
	}
	arrays_shrink(x->arrays, TABLES_PAGES, &x->pages, now_ms);
	arrays_shrink(x->arrays, TABLES_DELTAS, &x->deltas, now_ms);
}

void exes_counters(const struct exes *x, struct exes_counters *ret)
{
	*ret = x->counters;
	ret->pending = exes_pending(x);
}
