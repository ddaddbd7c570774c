// SPDX-License-Identifier: Apache-2.0
/*
 * One turn waits for the kernel's ring for at most TURN_MS, takes the samples out, reads processes that are due (a few at a
 * time), and lets the reporter (or the exporter of OTLP) go on. Every report interval what was gathered becomes a report (or an OTLP
 * request, or at the end of the window a file).
 */
#include "agent/run.h"

#include "agent/collect.h"
#include "agent/exporter.h"
#include "agent/jit.h"
#include "agent/kernel.h"
#include "agent/kinds.h"
#include "agent/otlp.h"
#include "agent/output.h"
#include "agent/privilege.h"
#include "agent/resume.h"
#include "agent/self.h"
#include "agent/uploader.h"
#include "agent/watch.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { TURN_MS = 100, START_PAUSE_MS = 20, START_MS = 30000, STATUS_MS = 10000, FINISH_MS = 10000, LINE_BYTES = 1024, START_CPU_MS = 1500, LIMIT_SAVED_S = 10 };

struct agent {
	const struct options *options;
	const volatile sig_atomic_t *stopped;
	struct sampler *sampler;
	struct tables *tables;
	struct watch *watch;
	struct resume *resume;
	struct jit *jit;
	struct kernel *kernel;
	struct processes *processes;
	/* One of these three, by options->protocol: a reporter, an exporter, or a file. */
	struct reporter *reporter;
	struct collect *collect; /* of ticks */
	struct collect *others[SAMPLE_KINDS]; /* of other kinds, as they come */
	struct exporter *exporter;
	struct otlp *otlp;	 /* with the exporter: of this window */
	struct things *things;	 /* with the reporter */
	struct uploader *uploader; /* with the reporter and --upload-symbols */
	uint64_t now_ms;	 /* CLOCK_MONOTONIC, of this turn */
	uint64_t unix_offset_ns; /* CLOCK_REALTIME less CLOCK_MONOTONIC */
	uint64_t window_ms, status_ms, chance_ms; /* when they are due; window: when it began, unix time */
	bool is_sampling;
	uint64_t records, lost_events, filtered, failures_told;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t clock_ms(clockid_t clock)
{
	return clock_ns(clock) / 1000000;
}

/* -------------------------------------------------------------------------------------- samples in */

static struct err *report_sample(struct agent *agent, const struct sample_head *head, const uint64_t *frames, const struct process_info *process)
{
	struct agent_sample sample = {
		.time_unix_nano = head->time_ns + agent->unix_offset_ns, .value = head->value, .cpu = (int32_t)head->cpu};

	TRY(things_sample(agent->things, head, frames, process, &sample));
	return reporter_add(agent->reporter, agent->things, head->kind, &sample);
}

/** Into the profile of its kind. */
static struct err *collect_sample(struct agent *agent, const struct sample_head *head, const uint64_t *frames)
{
	if (head->kind == SAMPLE_CPU || head->kind >= SAMPLE_KINDS)
		return collect_add(agent->collect, head, frames);
	if (!agent->others[head->kind])
		TRY(collect_create(agent->tables, agent->kernel, (uint32_t)agent->options->hz, head->kind, &agent->others[head->kind]));
	return collect_add(agent->others[head->kind], head, frames);
}

static struct err *export_window(struct agent *agent);

static struct err *export_sample(struct agent *agent, const struct sample_head *head, const uint64_t *frames, const struct process_info *process)
{
	TRY(otlp_add(agent->otlp, head, frames, process));
	return otlp_is_full(agent->otlp) ? export_window(agent) : NULL;
}

/** A sample whose stack is as whole as it gets. */
static struct err *take_sample(struct agent *agent, const struct sample_head *head, const uint64_t *frames)
{
	const struct filter *filter = &agent->options->filter;
	const struct process_info *process = NULL;
	bool fits = true;

	if (head->end == UNWIND_END_NO_PROCESS || head->end == UNWIND_END_NO_MAPPING || head->end == UNWIND_END_FRAME_POINTER)
		TRY(watch_missed(agent->watch, head->pid, agent->now_ms));
	if (filter->needs_process || !agent->collect) {
		TRY(processes_get(agent->processes, head->pid, agent->now_ms, &process));
		fits = filter_process(filter, process);
	}
	if (!fits) {
		agent->filtered++;
		return NULL;
	}
	TRY(jit_mark(agent->jit, head, frames, agent->now_ms, &frames));
	if (agent->reporter)
		return report_sample(agent, head, frames, process);
	return agent->otlp ? export_sample(agent, head, frames, process) : collect_sample(agent, head, frames);
}

static struct err *on_sample(void *context, const struct sample_head *head, const uint64_t *frames)
{
	struct agent *agent = context;

	agent->records++;
	if (!filter_sample(&agent->options->filter, head)) {
		agent->filtered++;
		resume_skip(agent->resume, head);
		return NULL;
	}
	if (head->cut_bytes)
		TRY(resume_sample(agent->resume, head, frames, agent->now_ms, &head, &frames));
	return head ? take_sample(agent, head, frames) : NULL;
}

static void forget(struct agent *agent, uint32_t pid)
{
	processes_gone(agent->processes, pid);
	jit_gone(agent->jit, pid);
	watch_gone(agent->watch, pid);
}

/** Forgets the processes that are gone and whose last samples are out; @p pid: in any case, since its number is in use again. */
static void forget_gone(struct agent *agent, uint32_t pid)
{
	uint32_t gone = 0;

	while (resume_released(agent->resume, pid, &gone))
		forget(agent, gone);
}

static struct err *on_forked(void *context, uint32_t pid, uint32_t parent)
{
	struct agent *agent = context;

	forget_gone(agent, pid);
	return tables_forked(agent->tables, pid, parent);
}

static struct err *on_execed(void *context, uint32_t pid)
{
	const struct agent *agent = context;

	return tables_execed(agent->tables, pid);
}

static struct err *on_mapped(void *context, uint32_t pid, const struct proc_map *map)
{
	const struct agent *agent = context;

	return tables_mapped(agent->tables, pid, map);
}

/** Where single processes are asked for, others are not read. */
static bool is_wanted(const struct agent *agent, uint32_t pid)
{
	const struct filter *filter = &agent->options->filter;

	for (size_t i = 0; i < filter->pid_count; i++)
		if (filter->pids[i] == pid)
			return true;
	return filter->pid_count == 0;
}

static struct err *on_changed(void *context, uint32_t pid)
{
	struct agent *agent = context;

	if (!is_wanted(agent, pid))
		return NULL;
	processes_changed(agent->processes, pid);
	/* One that the kernel half knows must not be unwound by what was mapped before. Others are read when they are sampled: most never
	   are. A single window may cost more, for whole stacks. */
	bool is_due = agent->options->once_ms || tables_knows(agent->tables, pid);
	return is_due ? watch_changed(agent->watch, pid, agent->now_ms) : NULL;
}

static struct err *on_gone(void *context, uint32_t pid)
{
	struct agent *agent = context;

	if (!resume_keep(agent->resume, pid))
		forget(agent, pid);
	return NULL;
}

/** Samples that waited for unwind tables. */
static struct err *take_waiting(struct agent *agent, bool give_up)
{
	const struct sample_head *head = NULL;
	const uint64_t *frames = NULL;

	while (resume_next(agent->resume, agent->now_ms, give_up, &head, &frames))
		TRY(take_sample(agent, head, frames));
	forget_gone(agent, 0);
	return NULL;
}

/** All processes that are asked for. */
static struct err *scan(struct agent *agent)
{
	const struct filter *filter = &agent->options->filter;

	for (size_t i = 0; i < filter->pid_count; i++)
		TRY(watch_changed(agent->watch, filter->pids[i], 0));
	return filter->pid_count > 0 ? NULL : watch_scan(agent->watch);
}

static struct err *on_lost(void *context, uint64_t events)
{
	struct agent *agent = context;

	agent->lost_events += events;
	return scan(agent);
}

/** Hands out what the kernel has, and reads the processes that are due. */
static struct err *take_in(struct agent *agent, int timeout_ms, uint32_t *left_ret)
{
	struct sampler_handler handler = {.sample = on_sample, .forked = on_forked, .execed = on_execed, .mapped = on_mapped, .changed = on_changed, .gone = on_gone, .lost = on_lost, .context = agent};

	agent->now_ms = clock_ms(CLOCK_MONOTONIC);
	TRY(sampler_poll(agent->sampler, timeout_ms, &handler));
	TRY(tables_work(agent->tables));
	agent->now_ms = clock_ms(CLOCK_MONOTONIC);
	TRY(take_waiting(agent, false));
	return watch_work(agent->watch, agent->now_ms, left_ret);
}

/** A single window begins when all processes were read, a little at a time, and their unwind tables are there; else each is read when it is sampled. */
static struct err *read_all(struct agent *agent)
{
	uint64_t give_up_ms = clock_ms(CLOCK_MONOTONIC) + START_MS;
	uint32_t left = 1;

	if (!agent->options->once_ms)
		return NULL;
	TRY(scan(agent));
	while (!*agent->stopped && clock_ms(CLOCK_MONOTONIC) < give_up_ms) {
		TRY(take_in(agent, START_PAUSE_MS, &left));
		if (left == 0 && !tables_want_all(agent->tables) && tables_pending(agent->tables) == 0)
			break;
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- what became of them */

static void append(char line[LINE_BYTES], const char *name, uint64_t value)
{
	size_t len = strlen(line);

	if (value > 0 && len + 1 < LINE_BYTES)
		(void)snprintf(line + len, LINE_BYTES - len, "%s%s=%" PRIu64, len ? " " : "", name, value);
}

/** The kernel half's counters, and what became of the stacks that it could not finish. */
static void count_all(const struct agent *agent, uint64_t counters[SAMPLE_COUNTERS])
{
	struct resume_counters resumed;

	sampler_counters(agent->sampler, counters);
	resume_counters(agent->resume, &resumed);
	for (unsigned i = 0; i < UNWIND_ENDS; i++)
		counters[i] += resumed.ends[i] - resumed.before[i];
}

static void log_uploads(const struct uploader *uploader)
{
	struct uploader_counters counters;

	uploader_counters(uploader, &counters);
	log_info("uploads", "asked=%" PRIu64 " sent=%" PRIu64 " failed=%" PRIu64 " excluded=%" PRIu64 " not_found=%" PRIu64 " dropped=%" PRIu64,
		counters.asked, counters.sent, counters.failed, counters.excluded, counters.not_found, counters.dropped);
}

/** False: samples go to a file. */
static bool delivery_counters(const struct agent *agent, struct reporter_counters *ret)
{
	if (agent->reporter)
		reporter_counters(agent->reporter, ret);
	else if (agent->exporter)
		exporter_counters(agent->exporter, ret);
	return agent->reporter || agent->exporter;
}

/** One line with what was sampled, one with every counter that is not 0, one with what the tables hold, one of the collector. */
static void log_counters(const struct agent *agent)
{
	struct tables_counters tables;
	struct watch_counters watch;
	struct sampler_status kernel;
	struct reporter_counters reporter;
	struct jit_counters jit;
	struct resume_counters resumed;
	uint64_t counters[SAMPLE_COUNTERS], user = 0;
	char line[LINE_BYTES] = "";

	count_all(agent, counters);
	resume_counters(agent->resume, &resumed);
	tables_counters(agent->tables, &tables);
	watch_counters(agent->watch, &watch);
	for (unsigned i = 0; i < UNWIND_ENDS; i++)
		user += i == UNWIND_END_NO_STACK ? 0 : counters[i];
	for (unsigned i = 0; i < SAMPLE_COUNTERS; i++)
		append(line, sampler_counter_name(i), counters[i]);
	log_info("samples", "records=%" PRIu64 " user_stacks=%" PRIu64 " complete_permille=%" PRIu64 " cpus=%u lost_process_events=%" PRIu64 " not_asked_for=%" PRIu64,
		agent->records, user, user ? counters[UNWIND_END_COMPLETE] * 1000 / user : 0, sampler_cpus(agent->sampler), agent->lost_events,
		agent->filtered);
	log_info("counters", "%s", line);
	sampler_status(agent->sampler, &kernel);
	log_info("kernel", "bpf_loop=%d regs_way=%s table_bytes=%" PRIu64 " tables_not_grown=%" PRIu64 " cpus_come=%" PRIu64 " cpus_gone=%" PRIu64
			   " off_cpu_waiting=%" PRIu64 " off_cpu_dropped=%" PRIu64 " off_cpu_unmatched=%" PRIu64,
		kernel.has_loop, sampler_regs_way_name(kernel.regs_way), kernel.table_bytes, kernel.tables_not_grown, kernel.cpus_come,
		kernel.cpus_gone, kernel.off_cpu_waiting, kernel.off_cpu_dropped, kernel.off_cpu_unmatched);
	const struct exes_counters *exes = &tables.exes;
	log_info("tables", "processes=%" PRIu64 " executables=%" PRIu64 " pending=%" PRIu64 " deltas=%" PRIu64 " mappings=%" PRIu64
			   " synced=%" PRIu64 " unchanged=%" PRIu64 " cut=%" PRIu64 " gone=%" PRIu64 " dropped=%" PRIu64,
		tables.processes, exes->count, exes->pending, exes->deltas, tables.mappings, tables.processes_synced,
		tables.processes_unchanged, tables.mappings_cut, tables.processes_failed, watch.dropped);
	log_info("unwind-tables", "refused=%" PRIu64 " crashed=%" PRIu64 " late=%" PRIu64 " full=%" PRIu64 " evicted=%" PRIu64
				  " replaced=%" PRIu64 " debug_files=%" PRIu64 " infos_dropped=%" PRIu64 " built=%" PRIu64 " build_ms=%" PRIu64
				  " build_peak_mb=%" PRIu64 " without_credit=%" PRIu64 " given_up=%" PRIu64 " waited_in_vain=%" PRIu64 " could_not_wait=%" PRIu64,
		exes->refused, exes->crashed, exes->late, exes->full, exes->evicted, exes->replaced, exes->debug_files, exes->infos_dropped, exes->built,
		exes->build_ns / 1000000, exes->build_peak_bytes >> 20, exes->turns_without_credit, exes->dropped, resumed.late, resumed.full);
	if (agent->uploader)
		log_uploads(agent->uploader);
	jit_counters(agent->jit, &jit);
	line[0] = 0;
	append(line, "frames_named", jit.named);
	append(line, "frames_marked", jit.marked);
	append(line, "maps_refused", jit.maps_refused);
	for (unsigned i = RUNTIME_NONE + 1; i < TABLES_RUNTIMES; i++)
		append(line, runtime_name(i), jit.samples[i]);
	if (line[0])
		log_info("runtimes", "%s", line);
	if (!delivery_counters(agent, &reporter))
		return;
	log_info("collector", "connected=%s samples=%" PRIu64 " reports=%" PRIu64 " acknowledged=%" PRIu64 " connects=%" PRIu64 " failures=%" PRIu64
			      " retries=%" PRIu64 " spool_bytes=%" PRIu64 " lost_queue=%" PRIu64 " lost_spool=%" PRIu64 " refused=%" PRIu64
			      " rejected_profiles=%" PRIu64,
		reporter.is_connected ? "yes" : "no", reporter.samples, reporter.reports, reporter.acknowledged_reports, reporter.connects,
		reporter.failures, reporter.retries, reporter.spool_bytes, reporter.dropped_queue, reporter.dropped_spool, reporter.refused,
		reporter.rejected_profiles);
}

enum { LOSSES_MAX = 16 + SAMPLE_COUNTERS };

static void add_loss(struct agent_loss *losses, size_t *count, const char *reason, uint64_t samples)
{
	if (samples > 0)
		losses[(*count)++] = (struct agent_loss){{(const uint8_t *)reason, strlen(reason)}, samples, false};
}

/** Samples whose stack is not whole: by how their unwinding ended, or by the part that is not there. */
static void gather_cuts(const uint64_t counters[SAMPLE_COUNTERS], struct agent_loss *losses, size_t *count)
{
	for (unsigned i = 0; i < SAMPLE_COUNTERS; i++) {
		bool is_cut = i < UNWIND_ENDS ? i != UNWIND_END_COMPLETE
					      : i == SAMPLE_COUNT_COMPAT || i == SAMPLE_COUNT_NO_USER_REGS || i == SAMPLE_COUNT_NO_KERNEL_STACK;
		size_t before = *count;
		if (is_cut)
			add_loss(losses, count, sampler_counter_name(i), counters[i]);
		if (*count > before)
			losses[before].is_cut = true;
	}
}

/* Samples that are lost, then those that are cut. */
static size_t gather_losses(const struct agent *agent, const struct reporter_counters *reporter, const uint64_t counters[SAMPLE_COUNTERS],
	struct agent_loss losses[LOSSES_MAX])
{
	struct sampler_status kernel;
	size_t count = 0;

	sampler_status(agent->sampler, &kernel);
	add_loss(losses, &count, "ring_full", counters[SAMPLE_COUNT_RING_FULL]);
	add_loss(losses, &count, "probe_busy", counters[SAMPLE_COUNT_BUSY]);
	add_loss(losses, &count, "off_cpu_dropped", kernel.off_cpu_dropped);
	add_loss(losses, &count, "queue_full", reporter->dropped_queue);
	add_loss(losses, &count, "spool_full", reporter->dropped_spool);
	add_loss(losses, &count, "refused", reporter->refused);
	add_loss(losses, &count, "clock_ahead", reporter->rejected_future);
	add_loss(losses, &count, "too_old", reporter->rejected_old);
	gather_cuts(counters, losses, &count);
	return count;
}

static struct err *send_status(struct agent *agent)
{
	struct reporter_counters reporter;
	struct agent_loss losses[LOSSES_MAX];
	struct agent_status status = {.time_unix_nano = clock_ns(CLOCK_REALTIME)};
	uint64_t counters[SAMPLE_COUNTERS];

	reporter_counters(agent->reporter, &reporter);
	count_all(agent, counters);
	self_usage(&status.cpu_user_ns, &status.cpu_system_ns, &status.memory_bytes);
	sampler_usage(agent->sampler, &status.bpf_ns, &status.bpf_map_bytes);
	status.samples = counters[SAMPLE_COUNT_TAKEN] + counters[SAMPLE_COUNT_OFF_CPU_TAKEN] + counters[SAMPLE_COUNT_EVENTS];
	status.queued_bytes = reporter.queue_bytes;
	status.spooled_bytes = reporter.spool_bytes;
	return reporter_status(agent->reporter, &status, losses, gather_losses(agent, &reporter, counters, losses));
}

/** Tells once when the collector goes away and why, and at most every status interval why it stays away. */
static void log_failures(struct agent *agent)
{
	struct reporter_counters counters;

	if (!delivery_counters(agent, &counters))
		return;
	uint64_t failures = counters.failures + counters.rejected_profiles;
	if (failures != agent->failures_told)
		log_warn("collector", "connected=%s failures=%" PRIu64 " queue_bytes=%" PRIu64 " spool_bytes=%" PRIu64 " lost=%" PRIu64
				      " rejected_profiles=%" PRIu64 " reason=\"%s\"",
			counters.is_connected ? "yes" : "no", counters.failures, counters.queue_bytes, counters.spool_bytes,
			counters.dropped_queue + counters.dropped_spool + counters.refused, counters.rejected_profiles, counters.last_failure);
	agent->failures_told = failures;
}

/* -------------------------------------------------------------------------------------- samples out */

/** A profile of another kind stands beside that of ticks. Standard output has ticks only. */
static struct err *write_other(struct agent *agent, unsigned kind)
{
	CLEANUP(buf_deinit) struct buf out = {0};
	CLEANUP(buf_deinit) struct buf path = {0};

	if (strcmp(agent->options->output, "-") == 0)
		return NULL;
	TRY(collect_write_pprof(agent->others[kind], agent->window_ms * 1000000, clock_ns(CLOCK_REALTIME), &out));
	TRY(output_path(agent->options->output, kind_of(kind)->type, &path));
	return output_write((const char *)path.data, &out);
}

static struct err *write_window(struct agent *agent)
{
	CLEANUP(buf_deinit) struct buf out = {0};

	TRY(collect_write_pprof(agent->collect, agent->window_ms * 1000000, clock_ns(CLOCK_REALTIME), &out));
	TRY(output_write(agent->options->output, &out));
	for (unsigned kind = 0; kind < SAMPLE_KINDS; kind++)
		if (agent->others[kind])
			TRY(write_other(agent, kind));
	return NULL;
}

static struct err *begin_otlp(struct agent *agent)
{
	const struct options *o = agent->options;
	const struct otlp_options options = {.tables = agent->tables,
		.kernel = agent->kernel,
		.hz = (uint32_t)o->hz,
		.labels = o->label_items,
		.label_count = o->label_count};

	return otlp_create(&options, &agent->otlp);
}

/** The OTLP window ends, and another begins. */
static struct err *export_window(struct agent *agent)
{
	CLEANUP(buf_deinit) struct buf out = {0};
	uint64_t samples = otlp_samples(agent->otlp), now_ms = clock_ms(CLOCK_REALTIME);
	uint64_t duration_ms = now_ms > agent->window_ms ? now_ms - agent->window_ms : 0;

	if (samples > 0) {
		TRY(otlp_encode(agent->otlp, agent->window_ms * 1000000, duration_ms * 1000000, &out));
		TRY(exporter_push(agent->exporter, &out, samples, agent->now_ms));
		otlp_destroy(TAKE_PTR(agent->otlp));
		TRY(begin_otlp(agent));
	}
	agent->window_ms = now_ms;
	return NULL;
}

static struct err *renew_things(struct agent *agent)
{
	struct things *things = NULL;

	if (agent->things && things_bytes(agent->things) < THINGS_BYTES_MAX)
		return NULL;
	TRY(things_create(agent->tables, agent->kernel, (uint32_t)agent->options->hz, &things));
	things_release(agent->things);
	agent->things = things;
	return NULL;
}

/** The report interval is over. */
static struct err *end_window(struct agent *agent)
{
	if (agent->reporter) {
		TRY(reporter_flush(agent->reporter, agent->now_ms));
		TRY(renew_things(agent));
	} else if (agent->otlp) {
		TRY(export_window(agent));
	}
	if (!agent->collect)
		tables_trim(agent->tables);
	agent->window_ms = clock_ms(CLOCK_REALTIME);
	agent->unix_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
	return NULL;
}

/* -------------------------------------------------------------------------------------- the loop */

/** Whether this interval is sampled: --probability. */
static struct err *take_chance(struct agent *agent)
{
	const struct options *o = agent->options;
	uint32_t random = 0;

	if (o->probability == 100 || agent->now_ms < agent->chance_ms)
		return NULL;
	agent->chance_ms = agent->now_ms + o->probability_ms;
	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	bool is_wanted = random % 100 < o->probability;
	if (is_wanted == agent->is_sampling)
		return NULL;
	agent->is_sampling = is_wanted;
	log_debug("probability", "sampling=%s", is_wanted ? "yes" : "no");
	if (is_wanted)
		return sampler_start(agent->sampler);
	sampler_stop(agent->sampler);
	return NULL;
}

static struct err *tick_status(struct agent *agent)
{
	if (agent->now_ms < agent->status_ms)
		return NULL;
	agent->status_ms = agent->now_ms + STATUS_MS;
	(void)malloc_trim(0);
	log_failures(agent);
	return agent->reporter ? send_status(agent) : NULL;
}

static struct err *loop(struct agent *agent)
{
	const struct options *o = agent->options;
	uint64_t end_ms = o->once_ms ? clock_ms(CLOCK_MONOTONIC) + o->once_ms : UINT64_MAX;
	uint64_t report_ms = clock_ms(CLOCK_MONOTONIC) + o->report_ms;
	uint32_t left = 0;

	/* A file is one window, however long. */
	if (agent->collect)
		report_ms = UINT64_MAX;
	for (agent->now_ms = clock_ms(CLOCK_MONOTONIC); agent->now_ms < end_ms && !*agent->stopped;) {
		uint64_t wait = end_ms - agent->now_ms < TURN_MS ? end_ms - agent->now_ms : TURN_MS;
		TRY(take_chance(agent));
		TRY(take_in(agent, (int)wait, &left));
		if (agent->now_ms >= report_ms && agent->now_ms < end_ms) {
			report_ms = agent->now_ms + o->report_ms;
			TRY(end_window(agent));
		}
		TRY(tick_status(agent));
		if (agent->reporter)
			TRY(reporter_turn(agent->reporter, agent->now_ms));
		if (agent->exporter)
			TRY(exporter_turn(agent->exporter, agent->now_ms));
		if (agent->uploader)
			uploader_work(agent->uploader, agent->now_ms);
	}
	return NULL;
}

static struct err *deliver(struct agent *agent)
{
	if (agent->collect)
		return write_window(agent);
	if (agent->exporter) {
		TRY(export_window(agent));
		return exporter_finish(agent->exporter, FINISH_MS);
	}
	TRY(reporter_flush(agent->reporter, agent->now_ms));
	TRY(send_status(agent));
	return reporter_finish(agent->reporter, FINISH_MS);
}

/** The last samples' tables, as long as each may wait. */
static struct err *finish_waiting(struct agent *agent)
{
	uint64_t until_ms = clock_ms(CLOCK_MONOTONIC) + RESUME_WAIT_MS;
	struct resume_counters resumed;
	uint32_t left = 0;

	resume_counters(agent->resume, &resumed);
	while (resumed.waiting > 0 && clock_ms(CLOCK_MONOTONIC) < until_ms) {
		TRY(take_in(agent, START_PAUSE_MS, &left));
		resume_counters(agent->resume, &resumed);
	}
	return take_waiting(agent, true);
}

static struct err *work(struct agent *agent)
{
	uint32_t left = 0;

	TRY(sampler_listen(agent->sampler));
	TRY(read_all(agent));
	agent->is_sampling = true;
	TRY(sampler_start(agent->sampler));
	agent->window_ms = clock_ms(CLOCK_REALTIME);
	agent->unix_offset_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
	log_info("start", "version=" CAIRN_VERSION " cpus=%u samples_per_second=%" PRIu64 " collector=\"%s\"", sampler_cpus(agent->sampler),
		agent->options->hz, agent->collect ? "" : agent->options->collector ? agent->options->collector : agent->options->record ? "" : OPTIONS_COLLECTOR);
	TRY(loop(agent));
	sampler_stop(agent->sampler);
	TRY(take_in(agent, 0, &left));
	TRY(finish_waiting(agent));
	struct err *e = deliver(agent);
	log_counters(agent);
	return e;
}

/* -------------------------------------------------------------------------------------- start */

static void on_want(void *context, const struct server_want *want)
{
	const struct agent *agent = context;
	struct fileid file_id;

	if (want->file_id.len != sizeof(file_id.bytes))
		return;
	memcpy(file_id.bytes, want->file_id.bytes, sizeof(file_id.bytes));
	if (uploader_has_room(agent->uploader))
		err_free(uploader_want(agent->uploader, &file_id, things_user_of(agent->things, &file_id)));
}

static struct err *create_uploader(struct agent *agent)
{
	const struct options *o = agent->options;
	const struct uploader_options options = {
		.url = o->upload_url, .exclude = o->upload_exclude, .program = o->upload_program, .bytes_per_second = o->upload_rate};

	return o->upload ? uploader_create(&options, &agent->uploader) : NULL;
}

static struct err *create_exporter(struct agent *agent)
{
	const struct options *o = agent->options;
	const struct exporter_options options = {.collector = o->collector ? o->collector : OPTIONS_COLLECTOR,
		.spool = o->spool,
		.spool_bytes = o->spool_bytes,
		.queue_bytes = o->queue_bytes,
		.client = {.user_agent = "cairn-agent/" CAIRN_VERSION, .gzip_level = 1, .tls = o->tls ? &o->client_tls : NULL}};

	TRY(begin_otlp(agent));
	return exporter_create(&options, &agent->exporter);
}

static struct err *create_reporter(struct agent *agent)
{
	const struct options *o = agent->options;
	struct reporter_options options = {.collector = o->collector ? o->collector : o->record ? NULL : OPTIONS_COLLECTOR,
		.record = o->record,
		.spool = o->spool,
		.spool_bytes = o->spool_bytes,
		.queue_bytes = o->queue_bytes,
		.client = {.user_agent = "cairn-agent/" CAIRN_VERSION, .gzip_level = 1, .tls = o->tls ? &o->client_tls : NULL},
		.cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN),
		.period_ns = 1000000000 / o->hz,
		.label_count = o->label_count,
		.want_symbols = o->upload ? on_want : NULL,
		.context = agent};

	TRY(create_uploader(agent));
	memcpy(options.labels, o->label_items, sizeof(options.labels));
	TRY(renew_things(agent));
	return reporter_create(&options, &agent->reporter);
}

static void log_lacks(void)
{
	for (unsigned i = 0; i < PRIVILEGE_LACKS_MAX; i++) {
		const char *lack = privilege_lack(privilege_effective(), geteuid() == 0, i);
		if (lack)
			log_warn("privilege", "missing=\"%s\"", lack);
	}
}

/** CPU time for unwind tables: a share that is saved for ten seconds, and for the start what is short of a spike. A single window waits for them. */
static void limit_tables(const struct agent *agent)
{
	if (agent->options->once_ms)
		return;
	uint64_t cpus = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN), ns_per_s = agent->options->unwind_share * cpus * 100000;

	tables_limit(agent->tables, ns_per_s, START_CPU_MS * cpus * 1000000, ns_per_s * LIMIT_SAVED_S);
}

static struct err *start(struct agent *agent)
{
	const struct sampler_options sampling = options_sampler(agent->options);

	TRY(sampler_create(&sampling, &agent->sampler));
	TRY(tables_create(sampler_arrays(agent->sampler), NULL, &agent->tables));
	limit_tables(agent);
	TRY(resume_create(agent->tables, sampler_arrays(agent->sampler), &agent->resume));
	TRY(jit_create(agent->tables, &agent->jit));
	TRY(watch_create(agent->tables, &agent->watch));
	TRY(processes_create("/proc", &agent->processes));
	TRY(kernel_create("/proc/kallsyms", &agent->kernel));
	log_lacks();
	if (kernel_symbol_count(agent->kernel) == 0)
		log_warn("kernel-names", "none=\"/proc/kallsyms shows no addresses: CAP_SYSLOG is missing, or kernel.kptr_restrict is 2\"");
	switch (agent->options->protocol) {
	case PROTOCOL_OTLP:
		return create_exporter(agent);
	case PROTOCOL_FILE:
		TRY(output_check(agent->options->output));
		return collect_create(agent->tables, agent->kernel, sampling.hz, SAMPLE_CPU, &agent->collect);
	case PROTOCOL_CAIRN:
		break;
	}
	return create_reporter(agent);
}

static void finish(struct agent *agent)
{
	uploader_destroy(agent->uploader);
	reporter_destroy(agent->reporter);
	things_release(agent->things);
	exporter_destroy(agent->exporter);
	otlp_destroy(agent->otlp);
	collect_destroy(agent->collect);
	for (unsigned kind = 0; kind < SAMPLE_KINDS; kind++)
		collect_destroy(agent->others[kind]);
	kernel_destroy(agent->kernel);
	processes_destroy(agent->processes);
	watch_destroy(agent->watch);
	resume_destroy(agent->resume);
	jit_destroy(agent->jit);
	tables_destroy(agent->tables);
	sampler_destroy(agent->sampler);
}

struct err *run_agent(const struct options *options, const volatile sig_atomic_t *stopped)
{
	struct agent agent = {.options = options, .stopped = stopped};

	struct err *e = start(&agent);
	if (!e)
		e = work(&agent);
	finish(&agent);
	return e;
}
